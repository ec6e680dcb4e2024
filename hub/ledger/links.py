"""Links from outside objects to their cases, written with the effect that created the object and read at intake.

`known_object` reads, in one query, all that intake needs of an object: its case, and whether deliveries or events of it wait.
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
    """The object's case, None while it is not linked."""
    return conn.execute(select(links.c.case_id).where(links.c.object == ref)).scalar_one_or_none()


def link(conn: Connection, ref: str, case: str, command: str | None = None) -> int:
    """Link an object to a case; 1 if it was not linked. The first link is final: an object never changes its case."""
    return insert_new(conn, links, {"object": ref, "case_id": case, "command_id": command}, "object")


def link_effects(conn: Connection, made: Sequence[tuple[str, str, str]]) -> None:
    """As `link`, for objects that commands have created: object, case, command."""
    insert_all(conn, links, ("object", "case_id", "command_id"), sorted(made), "object")


def link_all(conn: Connection, cases: Mapping[str, str]) -> Mapping[str, str]:
    """As `link`, for many; returns object → its case now."""
    rows = [(ref, case, None) for ref, case in sorted(cases.items())]  # sorted, so that two processes never deadlock
    if insert_all(conn, links, ("object", "case_id", "command_id"), rows, "object") == len(rows):
        return cases
    return cases_of(conn, tuple(cases))


def cases_of(conn: Connection, refs: Sequence[str]) -> dict[str, str]:
    """Object → case, for the linked ones of these objects."""
    found = "WITH given (ref) AS ({given}) SELECT object, case_id FROM given JOIN links ON object = ref"
    return {row.object: row.case_id for row in with_rows(conn, found, (links.c.object,), [(ref,) for ref in refs])}


NO_UPPER_BOUND = 2**62
"""As `before`: every parked delivery counts."""


class KnownObject(NamedTuple):
    """What the ledger stores of an object. `case` is None while it is not linked."""

    case: str | None
    waits: bool
    """A delivery about it is parked; later events wait behind it."""
    held: bool
    """An event about it is held until its case is known; later events wait behind it."""


_LOOK = select(
    select(links.c.case_id).where(links.c.object == bindparam("ref")).scalar_subquery(),
    exists().where(
        parked.c.state == literal_column("'open'", Text),  # a literal, so that the partial index applies
        parked.c.kind == "delivery",
        parked.c.subject == bindparam("ref"),
        parked.c.id < bindparam("before"),
    ),
    exists().where(outbox.c.case_id.is_(None), outbox.c.subject == bindparam("ref")),
)


def known_object(conn: Connection, ref: str, before: int = NO_UPPER_BOUND) -> KnownObject:
    """What the ledger stores of an object; only parked deliveries with an id below `before` count."""
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


def known_objects(conn: Connection, refs: Sequence[str]) -> dict[str, KnownObject]:
    """As `known_object`, for many objects at once; those of which nothing is known are left out."""
    found = with_rows(conn, _LOOK_ALL, (links.c.object,), [(ref,) for ref in refs]) if refs else ()
    return {row.about: KnownObject(row.case_id, bool(row.waits), bool(row.held)) for row in found}
