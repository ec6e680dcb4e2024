"""What cannot go on: deliveries, events and commands, each with its bytes and its reason, until a person has dealt with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, Connection, Index, LargeBinary, Table, Text, func, literal_column, select, update

from hub.ledger.dialect import insert_new
from hub.ledger.metadata import AnyRow, Json, Serial, metadata

parked = Table(
    "parked",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("ref", Text, nullable=False, unique=True),  # what is parked: kind and id
    Column("kind", Text, nullable=False),  # delivery, event or command
    Column("instance", Text),
    Column("case_id", Text),
    Column("subject", Text),
    Column("code", Text, nullable=False),
    Column("seen", Json, nullable=False),
    Column("place", Text),
    Column("rule", Text),
    Column("headers", Json),
    Column("body", LargeBinary, nullable=False),
    Column("parked_at", Text, nullable=False),
    Column("state", Text, nullable=False, default="open"),  # open, done, discarded
    Column("settled_at", Text),
    Column("reason", Text),
    Column("asked", Text),  # retry or discard, until the program that keeps this kind has answered
    Column("asked_by", Text),
    sqlite_autoincrement=True,
)
# Written out, not bound: only then may a database use the partial indexes below.
_open = parked.c.state == literal_column("'open'", Text)
Index("parked_open", parked.c.subject, sqlite_where=_open, postgresql_where=_open)
Index("parked_case", parked.c.case_id, sqlite_where=_open, postgresql_where=_open)


def park(conn: Connection, row: dict[str, Any]) -> int:
    """Keep something aside, once by its `ref`; 1 if it was not open. One that fails again has its newest reason."""
    if insert_new(conn, parked, {"state": "open", **row}, "ref"):
        return 1
    mine = parked.c.ref == row["ref"]
    reason = {"code": row["code"], "seen": row["seen"], "place": row.get("place")}
    reopened = conn.execute(
        update(parked).where(mine, ~_open).values(state="open", settled_at=None, reason=None)
    ).rowcount
    conn.execute(update(parked).where(mine).values(reason))
    return reopened


def settle(conn: Connection, ref: str, state: str, at: str, reason: str | None = None) -> int:
    """Close what is parked as `done` or `discarded`; 1 if it was open."""
    closed = update(parked).where(parked.c.ref == ref, _open)
    return conn.execute(closed.values(state=state, settled_at=at, reason=reason)).rowcount


def ask(conn: Connection, row: int, what: str, by: str | None = None, reason: str | None = None) -> int:
    """Ask for a `retry` or a `discard` of an open entry; 1 if it is open. `asked` is empty again once that was tried."""
    open_ = update(parked).where(parked.c.id == row, _open)
    return conn.execute(open_.values(asked=what, asked_by=by, reason=reason)).rowcount


def asked(conn: Connection, kind: str) -> Sequence[AnyRow]:
    """Open entries of a kind that something was asked for, oldest first."""
    found = select(parked).where(_open, parked.c.kind == kind, parked.c.asked.is_not(None))
    return conn.execute(found.order_by(parked.c.id)).all()


def answer(conn: Connection, row: int) -> None:
    """Note that what was asked for has been tried; the entry itself says with what result."""
    conn.execute(update(parked).where(parked.c.id == row).values(asked=None, asked_by=None))


def find(conn: Connection, ref: str) -> AnyRow | None:
    """The entry of a `ref`, open or settled."""
    return conn.execute(select(parked).where(parked.c.ref == ref)).first()


def waits(conn: Connection, subject: str) -> bool:
    """Whether a delivery about this subject is parked: later ones then wait behind it."""
    found = select(parked.c.id).where(_open, parked.c.kind == "delivery", parked.c.subject == subject).limit(1)
    return conn.execute(found).first() is not None


def opened(
    conn: Connection, *, kind: str | None = None, case: str | None = None, limit: int = 1000
) -> Sequence[AnyRow]:
    """What is open, oldest first."""
    found = select(parked).where(_open).order_by(parked.c.id).limit(limit)
    if kind is not None:
        found = found.where(parked.c.kind == kind)
    if case is not None:
        found = found.where(parked.c.case_id == case)
    return conn.execute(found).all()


def get(conn: Connection, row: int) -> AnyRow | None:
    """One entry, open or settled."""
    return conn.execute(select(parked).where(parked.c.id == row)).first()


def count(conn: Connection) -> dict[str, int]:
    """Open entries by kind."""
    found = select(parked.c.kind, func.count()).where(_open).group_by(parked.c.kind)
    return {key: value for key, value in conn.execute(found)}
