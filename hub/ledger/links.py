"""Which case an outside object belongs to: written with the effect that made it, read at intake.

What the ledger knows of one object at the moment that news of it comes in: one look for three questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, Text, bindparam, exists, literal_column, select

from hub.ledger.database import insert_all, insert_new, metadata, with_rows
from hub.ledger.outbox import outbox
from hub.ledger.parked import parked

links = Table(
    "links",
    metadata,
    Column("object", Text, primary_key=True),
    Column("case_id", Text, nullable=False, index=True),
    Column("command_id", Text),
)


def case_of(conn: Connection, ref: str) -> str | None:
    """The object's case, None while nobody has linked it."""
    return conn.execute(select(links.c.case_id).where(links.c.object == ref)).scalar_one_or_none()


def link(conn: Connection, ref: str, case: str, command: str | None = None) -> int:
    """Say that an object belongs to a case; 1 if nobody had. The first word counts: an object never changes its case."""
    return insert_new(conn, links, {"object": ref, "case_id": case, "command_id": command}, "object")


def link_made(conn: Connection, made: Sequence[tuple[str, str, str]]) -> None:
    """As `link`, for what commands have made: object, case, command."""
    insert_all(conn, links, ("object", "case_id", "command_id"), sorted(made), "object")


def link_all(conn: Connection, cases: Mapping[str, str]) -> Mapping[str, str]:
    """As `link`, for many: object → case as it is now."""
    rows = [(ref, case, None) for ref, case in sorted(cases.items())]  # sorted: two programs then never wait crosswise
    if insert_all(conn, links, ("object", "case_id", "command_id"), rows, "object") == len(rows):
        return cases
    return cases_of(conn, tuple(cases))


def cases_of(conn: Connection, refs: Sequence[str]) -> dict[str, str]:
    """The cases of those objects that are linked."""
    found = "WITH given (ref) AS ({given}) SELECT object, case_id FROM given JOIN links ON object = ref"
    return {row.object: row.case_id for row in with_rows(conn, found, (links.c.object,), [(ref,) for ref in refs])}


ALL = 2**62
"""As `before`: every parked delivery counts."""


class KnownObject(NamedTuple):
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


def look(conn: Connection, ref: str, before: int = ALL) -> KnownObject:
    """What is known of an object; of its parked deliveries, only those with an id under `before` count."""
    return KnownObject(*conn.execute(_LOOK, {"ref": ref, "before": before}).one())


_LOOK_ALL = """
    WITH given (about) AS ({given}), known AS (
        SELECT about, links.case_id AS case_id,
            EXISTS (SELECT 1 FROM parked WHERE state = 'open' AND kind = 'delivery' AND parked.subject = about) AS waits,
            EXISTS (SELECT 1 FROM outbox WHERE outbox.case_id IS NULL AND outbox.subject = about) AS held
        FROM given LEFT JOIN links ON links.object = about
    )
    SELECT about, case_id, waits, held FROM known WHERE case_id IS NOT NULL OR waits OR held
"""


def look_all(conn: Connection, refs: Sequence[str]) -> dict[str, KnownObject]:
    """As `look`, for many objects at once; those of which nothing is known are left out."""
    found = with_rows(conn, _LOOK_ALL, (links.c.object,), [(ref,) for ref in refs]) if refs else ()
    return {row.about: KnownObject(row.case_id, bool(row.waits), bool(row.held)) for row in found}
