"""How far each polled stream is read. A cursor moves in the transaction that takes its page in."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.dialect import put
from hub.ledger.metadata import AnyRow, metadata

cursors = Table(
    "cursors",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("moved_at", Text, nullable=False),
)


def get(conn: Connection, instance: str, stream: str) -> str | None:
    """The stream's cursor, None before its first page."""
    found = select(cursors.c.cursor).where(cursors.c.instance == instance, cursors.c.stream == stream)
    return conn.execute(found).scalar_one_or_none()


def move(conn: Connection, instance: str, stream: str, cursor: str, at: str) -> None:
    """Keep the stream's cursor."""
    row = {"instance": instance, "stream": stream, "cursor": cursor, "moved_at": at}
    put(conn, cursors, [row], "instance", "stream")


def every(conn: Connection) -> Sequence[AnyRow]:
    """All cursors."""
    return conn.execute(select(cursors).order_by(cursors.c.instance, cursors.c.stream)).all()
