"""What a person does about a parked event: have its case taken up again, or leave it out. Each is itself an event of that case.

The processor answers: it folds what waits, in order, as far as it goes, and settles the ledger's entries through `hub.commands`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import get_args

from pydantic import StringConstraints
from sqlalchemy import Connection

from hub.ledger import outbox, parked
from hub.ledger.metadata import AnyRow
from schemas.catalog import event_spec
from schemas.event import Event, Reference, derived_id, stamp

SOURCE = "/hub/parked"
HUB = "hub"
RETRIED, DISCARDED = "hub.parked.retried", "hub.parked.discarded"
_CASE = re.compile(str(next(c.pattern for c in get_args(Reference) if isinstance(c, StringConstraints))))


@dataclass(frozen=True)
class Asking:
    """Who asks, when, and why."""

    now: datetime
    by: str | None = None
    reason: str | None = None


def has_case(entry: AnyRow) -> bool:
    """Whether it holds a case up. What came under no case's key holds up nothing, and can only be discarded."""
    return entry.case_id is not None and _CASE.match(entry.case_id) is not None


def retry(conn: Connection, entry: AnyRow, asking: Asking) -> str:
    """Have the entry's case take up all that waits in it; the id of the event that asks for it."""
    return _record(conn, RETRIED, entry, entry.case_id, asking)


def discard(conn: Connection, entry: AnyRow, asking: Asking) -> str:
    """Have the entry's case leave it out and go on; what holds up no case is settled at once. The id of the event."""
    if has_case(entry):
        return _record(conn, DISCARDED, entry, entry.case_id, asking)
    parked.settle(conn, entry.ref, "discarded", stamp(asking.now), asking.reason)
    return _record(conn, DISCARDED, entry, entry.ref, asking)


def _record(conn: Connection, type_: str, entry: AnyRow, case: str, asking: Asking) -> str:
    at, wanted = stamp(asking.now), entry.ref.removeprefix("event/")
    event = Event(
        id=derived_id(type_, case, wanted, at),  # one event may park, and be let go, many times
        source=SOURCE,
        type=type_,
        subject=case,
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        data={"parked": wanted, "reason": asking.reason, "by": asking.by},
    )
    outbox.record(conn, [event], HUB)
    return event.id
