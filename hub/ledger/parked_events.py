"""Operator actions on a parked (dead-lettered) event: retry its case, correct it, discard it. Each is recorded as an event.

The processor reacts to that event: it folds the waiting events in order until one fails, and settles the ledger's entries through
`hub.commands`. The ids of these events contain no time: a request repeated before the processor has reacted is the same event.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from hub.ledger import outbox, parked
from hub.ledger.database import AnyRow
from schemas.envelope import HUB_INSTANCE, Event, derived_id, format_time, is_reference
from schemas.registry import event_spec

SOURCE = "/hub/parked"
RETRIED, DISCARDED, EDITED = "hub.parked.retried", "hub.parked.discarded", "hub.parked.edited"


@dataclass(frozen=True)
class OperatorRequest:
    """An operator's action: when, by which person, and for what reason."""

    now: datetime
    by: str | None = None
    reason: str | None = None

    def as_data(self) -> dict[str, Any]:
        """The `reason` and `by` fields of the event's data."""
        return {"reason": self.reason, "by": self.by}


def has_case(entry: AnyRow) -> bool:
    """Whether the entry blocks a case. A record whose key is no case id blocks nothing: it can only be corrected or discarded."""
    return entry.case_id is not None and is_reference(entry.case_id)


def retry(conn: Connection, entry: AnyRow, request: OperatorRequest) -> str:
    """Request that the entry's case processes all its waiting events; returns the id of the request event.

    An entry of no case enters the log as an ordinary event with its corrected content, and is settled here.
    """
    if has_case(entry):
        return _record(conn, RETRIED, entry, parked.retry_key(conn, entry.case_id), request.as_data(), request)
    event = Event.from_json(entry.correction).model_copy(update={"sequence": None, "outbox": None})
    outbox.record(conn, [event], HUB_INSTANCE)
    parked.settle(conn, entry.ref, "done", format_time(request.now))
    return _record(conn, RETRIED, entry, _tries(entry), request.as_data(), request)


def discard(conn: Connection, entry: AnyRow, request: OperatorRequest) -> str:
    """Request that the entry's case skips it and goes on; returns the event's id. An entry of no case is settled at once."""
    if not has_case(entry):
        parked.settle(conn, entry.ref, "discarded", format_time(request.now), request.reason)
    return _record(conn, DISCARDED, entry, _tries(entry), request.as_data(), request)


def edit(conn: Connection, entry: AnyRow, corrected: Event, request: OperatorRequest) -> str | None:
    """Use `corrected` instead of the parked event at the next try; returns the event's id, None when nothing changes."""
    return correct(conn, entry, corrected.to_json(), {"event": corrected.model_dump(exclude_none=True)}, request)


def correct(
    conn: Connection, entry: AnyRow, body: bytes, details: dict[str, Any], request: OperatorRequest
) -> str | None:
    """Store a correction and record the edit event, with `details` in its data; None when the correction changes nothing."""
    if not parked.correct(conn, entry.id, body):
        return None
    current = parked.get(conn, entry.id)
    assert current is not None  # it was corrected above
    return _record(conn, EDITED, entry, (str(current.edits),), {**request.as_data(), **details}, request)


def _tries(entry: AnyRow) -> tuple[str, ...]:
    return (str(entry.tries), str(entry.edits))


def _record(
    conn: Connection,
    type_: str,
    entry: AnyRow,
    retry_key: tuple[str, ...],
    data: dict[str, Any],
    request: OperatorRequest,
) -> str:
    at, event_id = format_time(request.now), entry.ref.removeprefix("event/")
    case = str(entry.case_id) if entry.kind == "event" and has_case(entry) else str(entry.ref)
    event = Event(
        id=derived_id(type_, case, event_id, *retry_key),
        source=SOURCE,
        type=type_,
        subject=case,
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        data={"parked": event_id, **data},
    )
    outbox.record(conn, [event], HUB_INSTANCE)
    return event.id
