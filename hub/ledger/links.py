"""Which case an outside object belongs to: written with the effect that made it, read at intake."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.dialect import insert_new
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
