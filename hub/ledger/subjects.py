"""What the ledger knows of one object at the moment that news of it comes in: one look for three questions."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, Text, bindparam, exists, literal_column, select

from hub.ledger.links import links
from hub.ledger.outbox import outbox
from hub.ledger.parked import parked

ALL = 2**62
"""As `before`: every parked delivery counts."""


class Known(NamedTuple):
    """`case` is None for an object that nobody has linked."""

    case: str | None
    waits: bool
    """A delivery about it is parked: later news wait behind it."""
    held: bool
    """News of it is held back until its case is known: later news wait behind it."""


_LOOK = select(
    select(links.c.case_id).where(links.c.object == bindparam("ref")).scalar_subquery(),
    exists().where(
        parked.c.state == literal_column("'open'", Text),  # written out, so that the partial index can serve
        parked.c.kind == "delivery",
        parked.c.subject == bindparam("ref"),
        parked.c.id < bindparam("before"),
    ),
    exists().where(outbox.c.case_id.is_(None), outbox.c.subject == bindparam("ref")),
)


def look(conn: Connection, ref: str, before: int = ALL) -> Known:
    """What is known of an object; of its parked deliveries, only those with an id under `before` count."""
    return Known(*conn.execute(_LOOK, {"ref": ref, "before": before}).one())
