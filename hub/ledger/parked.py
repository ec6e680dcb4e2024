"""Dead letters, called parked: deliveries, events and commands that failed, with bytes and reason, until a person settles them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    func,
    insert,
    literal_column,
    select,
    update,
)

from hub.ledger.database import AnyRow, Json, Serial, bound, insert_new, metadata, with_rows

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
    Column("asked", Text),  # retry or discard, until the program responsible for this kind has carried it out
    Column("asked_by", Text),
    Column("tries", Integer, nullable=False, server_default="1"),  # how often it has failed
    Column("tried_at", Text),  # when it failed last, if that was not when it was parked
    Column("mark", BigInteger),  # of an event: the log offset whose fold failed last, so that a repeat is known
    Column("correction", LargeBinary),  # what takes the place of `body` at the next try
    Column("edits", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
attempts = Table(
    "parked_attempts",
    metadata,
    Column("parked", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("seen", Json, nullable=False),
    Column("place", Text),
)
"""Earlier failures of an entry; its newest reason is in the entry itself."""
# Literals, not bound parameters: only then can a database use the partial indexes below.
is_open = parked.c.state == literal_column("'open'", Text)
_is_requested = parked.c.asked.is_not(None)
_columns = parked.c
Index("parked_open", _columns.subject, sqlite_where=is_open, postgresql_where=is_open)
Index("parked_case", _columns.case_id, sqlite_where=is_open, postgresql_where=is_open)
Index("parked_row", _columns.id, sqlite_where=is_open, postgresql_where=is_open)
Index("parked_asked", _columns.kind, _columns.id, sqlite_where=_is_requested, postgresql_where=_is_requested)
# Covers the groups of `hub.ledger.parked_search`: their rows, with bytes of up to half a megabyte each, are not touched.
Index(
    "parked_cause",
    *(_columns[name] for name in ("kind", "code", "rule", "place", "instance", "id", "parked_at", "state")),
    sqlite_where=is_open,
    postgresql_where=is_open,
)
_SETTLE = """
    WITH given (ref, state, settled_at) AS ({given})
    UPDATE parked SET state = given.state, settled_at = given.settled_at
    FROM given WHERE parked.ref = given.ref AND parked.state = 'open'
"""
_PENDING_REQUESTS = (
    select(parked)
    .where(is_open, parked.c.kind == bound("of"), _is_requested)
    .order_by(parked.c.id)
    .limit(bound("most"))
)
_REASON = ("code", "seen", "place", "rule", "mark")


def park(conn: Connection, row: dict[str, Any]) -> int:
    """Insert an entry, once for each `ref`; returns 1 if it was not open. An entry that fails again gets the newest reason.

    Its former reason moves to the attempts. The same failure reported twice counts as one attempt: a repeat has the same `mark`,
    or the entry is open, has no pending request and the same reason.
    """
    if insert_new(conn, parked, {"state": "open", **row}, "ref"):
        return 1
    known = conn.execute(select(*(c for c in _columns if c.name not in BYTES)).where(_columns.ref == row["ref"])).one()
    if _is_repeat(known, row):
        return 0
    _add_attempt(conn, known)
    reason = {name: row.get(name) for name in _REASON}
    again = {"tries": known.tries + 1, "tried_at": row["parked_at"]}
    if known.state != "open":
        again |= {"state": "open", "settled_at": None, "reason": None}
    conn.execute(update(parked).where(_columns.id == known.id).values(**reason, **again))
    return int(known.state != "open")


BYTES = frozenset({"body", "correction", "headers"})
"""Columns that lists omit."""


def _is_repeat(known: AnyRow, row: dict[str, Any]) -> bool:
    mark = row.get("mark")
    if mark is not None:
        return known.mark is not None and bool(mark <= known.mark)
    same = all(getattr(known, name) == row.get(name) for name in ("code", "seen", "place"))
    return known.state == "open" and known.asked is None and same


def _add_attempt(conn: Connection, known: AnyRow) -> None:
    before = {name: getattr(known, name) for name in ("code", "seen", "place")}
    at = known.tried_at or known.parked_at
    conn.execute(insert(attempts).values(parked=known.id, number=known.tries, at=at, **before))


def earlier_attempts(conn: Connection, row: int) -> Sequence[AnyRow]:
    """The attempts of an entry before its newest, oldest first: number, at, code, seen, place."""
    return conn.execute(select(attempts).where(attempts.c.parked == row).order_by(attempts.c.number)).all()


def correct(conn: Connection, row: int, correction: bytes) -> int:
    """Store what replaces an open entry's bytes at its next try; 0 when it is settled or already has this correction, else 1."""
    new = (_columns.correction.is_(None)) | (_columns.correction != correction)
    values = {"correction": correction, "edits": _columns.edits + 1}
    return conn.execute(update(parked).where(_columns.id == row, is_open, new).values(values)).rowcount


def settle(conn: Connection, ref: str, state: str, at: str, reason: str | None = None) -> int:
    """Settle an entry as `done` or `discarded`; 1 if it was open."""
    closed = update(parked).where(parked.c.ref == ref, is_open)
    return conn.execute(closed.values(state=state, settled_at=at, reason=reason)).rowcount


def settle_all(conn: Connection, settled: Sequence[tuple[str, str]], at: str) -> None:
    """As `settle`, for many: ref and state."""
    if settled:
        with_rows(conn, _SETTLE, (parked.c.ref, parked.c.state, parked.c.settled_at), [(*each, at) for each in settled])


def request(conn: Connection, row: int, action: str, by: str | None = None, reason: str | None = None) -> int:
    """Request a `retry` or a `discard` of an open entry; 1 if it is open. `clear_request` empties the column again."""
    open_ = update(parked).where(parked.c.id == row, is_open)
    return conn.execute(open_.values(asked=action, asked_by=by, reason=reason)).rowcount


def pending_requests(conn: Connection, kind: str, limit: int = 1000) -> Sequence[AnyRow]:
    """Open entries of a kind with a pending request, oldest first."""
    return conn.execute(_PENDING_REQUESTS, {"of": kind, "most": limit}).all()


def has_request(conn: Connection, row: int) -> bool:
    """Whether an open entry has a pending request."""
    return conn.execute(select(parked.c.asked).where(parked.c.id == row, is_open)).scalar_one_or_none() is not None


def clear_request(conn: Connection, row: int) -> None:
    """Clear the entry's request after it was carried out; the entry's state and reason show the result."""
    conn.execute(update(parked).where(parked.c.id == row).values(asked=None, asked_by=None))


def find(conn: Connection, ref: str) -> AnyRow | None:
    """The entry of a `ref`, open or settled."""
    return conn.execute(select(parked).where(parked.c.ref == ref)).first()


def waits(conn: Connection, subject: str) -> bool:
    """Whether a delivery about this subject is parked; later ones then wait behind it."""
    found = select(parked.c.id).where(is_open, parked.c.kind == "delivery", parked.c.subject == subject).limit(1)
    return conn.execute(found).first() is not None


def open_entries(
    conn: Connection, *, kind: str | None = None, case: str | None = None, limit: int = 1000
) -> Sequence[AnyRow]:
    """Open entries, oldest first."""
    found = select(parked).where(is_open).order_by(parked.c.id).limit(limit)
    if kind is not None:
        found = found.where(parked.c.kind == kind)
    if case is not None:
        found = found.where(parked.c.case_id == case)
    return conn.execute(found).all()


def retry_key(conn: Connection, case: str) -> tuple[str, ...]:
    """The case's first open entry, how often it has failed, and the number of edits in the case: the idempotency key of a retry.

    It changes with every failure and every edit and with nothing else, so that a retry requested twice is one request.
    """
    mine = (is_open, parked.c.kind == "event", parked.c.case_id == case)
    first = conn.execute(select(parked.c.ref, parked.c.tries).where(*mine).order_by(parked.c.id).limit(1)).first()
    edits = conn.execute(select(func.sum(parked.c.edits)).where(*mine)).scalar_one()
    return (str(first.ref), str(first.tries), str(edits)) if first is not None else ("", "0", "0")


def get(conn: Connection, row: int) -> AnyRow | None:
    """One entry, open or settled."""
    return conn.execute(select(parked).where(parked.c.id == row)).first()


def count(conn: Connection) -> dict[str, int]:
    """Open entries by kind."""
    found = select(parked.c.kind, func.count()).where(is_open).group_by(parked.c.kind)
    return {key: value for key, value in conn.execute(found)}
