"""What the ledger knows of one object at the moment that news of it comes in: one look for three questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Text, bindparam, exists, literal_column, select

from hub.ledger.dialect import with_rows
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


_LOOK_ALL = """
    WITH given (about) AS ({given}), known AS (
        SELECT about, links.case_id AS case_id,
            EXISTS (SELECT 1 FROM parked WHERE state = 'open' AND kind = 'delivery' AND parked.subject = about) AS waits,
            EXISTS (SELECT 1 FROM outbox WHERE outbox.case_id IS NULL AND outbox.subject = about) AS held
        FROM given LEFT JOIN links ON links.object = about
    )
    SELECT about, case_id, waits, held FROM known WHERE case_id IS NOT NULL OR waits OR held
"""


def look_all(conn: Connection, refs: Sequence[str]) -> dict[str, Known]:
    """As `look`, for many objects at once; those of which nothing is known are left out."""
    found = with_rows(conn, _LOOK_ALL, (links.c.object,), [(ref,) for ref in refs]) if refs else ()
    return {row.about: Known(row.case_id, bool(row.waits), bool(row.held)) for row in found}
