"""Which partitions of the log the processor has stopped before a loss, by the facts that it has told of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from hub.ledger.outbox import outbox
from hub.losses import HALTED, subject_of
from schemas.event import Event
from schemas.topics import PARTITIONS


def halted(conn: Connection) -> list[dict[str, Any]]:
    """The data of each halt that was not dealt with yet, by partition."""
    subjects = [subject_of(partition) for partition in range(PARTITIONS)]
    rows = conn.execute(select(outbox.c.body).where(outbox.c.subject.in_(subjects)).order_by(outbox.c.id))
    open_: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        event = Event.from_json(row.body)
        place = (int(event.data["partition"]), int(event.data["offset"]))
        if event.type == HALTED:
            open_[place] = event.data
        else:
            open_.pop(place, None)
    return [open_[place] for place in sorted(open_)]
