"""What a person does about a parked event: have its case taken up again, correct it, or leave it out. Each is an event itself.

The processor answers: it folds what waits, in order, as far as it goes, and settles the ledger's entries through `hub.commands`.
Their ids hold no time: who asks twice before there is an answer has asked once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from hub.ledger import outbox, parked
from hub.ledger.database import AnyRow
from schemas.envelope import HUB, Event, derived_id, format_time, is_reference
from schemas.registry import event_spec

SOURCE = "/hub/parked"
RETRIED, DISCARDED, EDITED = "hub.parked.retried", "hub.parked.discarded", "hub.parked.edited"


@dataclass(frozen=True)
class Asking:
    """Who asks, when, and why."""

    now: datetime
    by: str | None = None
    reason: str | None = None

    def told(self) -> dict[str, Any]:
        """As an event tells it."""
        return {"reason": self.reason, "by": self.by}


def has_case(entry: AnyRow) -> bool:
    """Whether it holds a case up. What came under no case's key holds up nothing: it can be corrected, or discarded."""
    return entry.case_id is not None and is_reference(entry.case_id)


def retry(conn: Connection, entry: AnyRow, asking: Asking) -> str:
    """Have the entry's case take up all that waits in it; the id of the event that asks for it.

    What belongs to no case enters the log as it was corrected, as an event like others, and is settled.
    """
    if has_case(entry):
        return _record(conn, RETRIED, entry, parked.turn(conn, entry.case_id), asking.told(), asking)
    event = Event.from_json(entry.correction).model_copy(update={"sequence": None, "outbox": None})
    outbox.record(conn, [event], HUB)
    parked.settle(conn, entry.ref, "done", format_time(asking.now))
    return _record(conn, RETRIED, entry, _tries(entry), asking.told(), asking)


def discard(conn: Connection, entry: AnyRow, asking: Asking) -> str:
    """Have the entry's case leave it out and go on; what holds up no case is settled at once. The id of the event."""
    if not has_case(entry):
        parked.settle(conn, entry.ref, "discarded", format_time(asking.now), asking.reason)
    return _record(conn, DISCARDED, entry, _tries(entry), asking.told(), asking)


def edit(conn: Connection, entry: AnyRow, corrected: Event, asking: Asking) -> str | None:
    """Have the next try read this instead of what is parked; the id of the event, None when that is so already."""
    return correct(conn, entry, corrected.to_json(), {"event": corrected.model_dump(exclude_none=True)}, asking)


def correct(conn: Connection, entry: AnyRow, body: bytes, told: dict[str, Any], asking: Asking) -> str | None:
    """Note a correction, and record the event that tells of it with `told`; None when nothing is changed by it."""
    if not parked.correct(conn, entry.id, body):
        return None
    now = parked.get(conn, entry.id)
    assert now is not None  # it was corrected above
    return _record(conn, EDITED, entry, (str(now.edits),), {**asking.told(), **told}, asking)


def _tries(entry: AnyRow) -> tuple[str, ...]:
    return (str(entry.tries), str(entry.edits))


def _record(
    conn: Connection, type_: str, entry: AnyRow, turn: tuple[str, ...], data: dict[str, Any], asking: Asking
) -> str:
    at, wanted = format_time(asking.now), entry.ref.removeprefix("event/")
    case = str(entry.case_id) if entry.kind == "event" and has_case(entry) else str(entry.ref)
    event = Event(
        id=derived_id(type_, case, wanted, *turn),
        source=SOURCE,
        type=type_,
        subject=case,
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        data={"parked": wanted, **data},
    )
    outbox.record(conn, [event], HUB)
    return event.id
