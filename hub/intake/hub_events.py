"""The hub's own events, recorded in the outbox: an instance is paused, a parked delivery was discarded."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from hub.ledger import outbox
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec

SOURCE = "/hub/connectors"


def record_hub_event(conn: Connection, type_: str, subject: str, data: Mapping[str, Any], now: datetime) -> None:
    """Record one of the hub's own events about `subject`, which is also its case.

    Its id derives from a counter of the subject's events, not from the time; the numbers of trimmed events are skipped.
    """
    numbers = itertools.count(len(outbox.of_subject(conn, subject)) + 1)
    ids = (derived_id("hub", type_, subject, str(number)) for number in numbers)
    event = Event(
        id=next(id_ for id_ in ids if not outbox.is_known(conn, id_)),
        source=SOURCE,
        type=type_,
        subject=subject,
        time=format_time(now),
        recordedtime=format_time(now),
        dataschema=event_spec(type_).dataschema,
        partitionkey=subject,
        correlationid=subject,
        data=dict(data),
    )
    outbox.record(conn, [event], "hub")


def newest_type(conn: Connection, subject: str) -> str | None:
    """The type of the newest event about a subject."""
    rows = outbox.of_subject(conn, subject)
    return str(rows[-1].type) if rows else None
