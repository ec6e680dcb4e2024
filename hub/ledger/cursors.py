"""The cursor of each polled stream. It moves in the transaction that records the page's events."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, Float, Table, Text, delete, inspect, select

from hub.ledger.database import AnyRow, metadata, upsert

cursors = Table(
    "cursors",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("moved_at", Text, nullable=False),
)

clocks = Table(
    "clocks",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("ahead", Float, nullable=False),  # seconds
    Column("at", Text, nullable=False),
)
"""Streams whose source's clock is ahead of ours."""


def get(conn: Connection, instance: str, stream: str) -> str | None:
    """The stream's cursor, None before its first page."""
    found = select(cursors.c.cursor).where(cursors.c.instance == instance, cursors.c.stream == stream)
    return conn.execute(found).scalar_one_or_none()


def move(conn: Connection, instance: str, stream: str, cursor: str, at: str, ahead: float | None = None) -> None:
    """Store the stream's cursor. `ahead`: seconds by which the source's clock is ahead; None (unknown) leaves it unchanged."""
    row = {"instance": instance, "stream": stream, "cursor": cursor, "moved_at": at}
    upsert(conn, cursors, [row], "instance", "stream")
    if ahead:
        upsert(conn, clocks, [{"instance": instance, "stream": stream, "ahead": ahead, "at": at}], "instance", "stream")
    elif ahead is not None:
        conn.execute(delete(clocks).where(clocks.c.instance == instance, clocks.c.stream == stream))


def ahead(conn: Connection) -> dict[tuple[str, str], float]:
    """Instance and stream → seconds by which the source's clock is ahead of ours; only streams where it is."""
    if not inspect(conn).has_table(clocks.name):  # a ledger that is only read may be of an older hub
        return {}
    return {(row.instance, row.stream): row.ahead for row in conn.execute(select(clocks))}


def all_cursors(conn: Connection) -> Sequence[AnyRow]:
    """All cursors."""
    return conn.execute(select(cursors).order_by(cursors.c.instance, cursors.c.stream)).all()
