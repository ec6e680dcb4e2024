"""Which case an outside object belongs to: written with the effect that made it, read at intake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.dialect import insert_all, insert_new, with_rows
from hub.ledger.metadata import metadata

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
