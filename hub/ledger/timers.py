"""Timers of cases, stored durably: when one is due, its event is recorded for the case."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Connection, Table, Text, delete, select

from hub.ledger.database import AnyRow, insert_new, metadata

timers = Table(
    "timers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("case_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("due_at", Text, nullable=False, index=True),
)


def set_timer(conn: Connection, timer: str, case: str, name: str, due_at: str) -> int:
    """Store a timer, once by its id (the command's); 1 if it is new."""
    return insert_new(conn, timers, {"id": timer, "case_id": case, "name": name, "due_at": due_at}, "id")


def due(conn: Connection, now: str, limit: int = 100) -> Sequence[AnyRow]:
    """Timers that are due, earliest first."""
    return conn.execute(select(timers).where(timers.c.due_at <= now).order_by(timers.c.due_at).limit(limit)).all()


def drop(conn: Connection, timer: str) -> None:
    """Delete a timer, in the transaction that records its event."""
    conn.execute(delete(timers).where(timers.c.id == timer))
