"""Webhook pushes that were refused. The sender gets the error in the response; this table shows it to the hub's owner.

A push with a valid signature is stored with its reason and first bytes, since data of a connected system would otherwise be lost
without a trace. A push without a valid signature is only counted. Both are bounded for each instance, so that refused pushes cannot
fill the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    delete,
    func,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from hub.ledger.database import AnyRow, Json, Serial, insert_new, metadata
from schemas.envelope import format_time

refused = Table(
    "refused",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("instance", Text, nullable=False),
    Column("ref", Text, nullable=False, unique=True),  # delivery/<instance>/…: the same push again has the same
    Column("delivery", Text),  # the sender's own id of it, as far as it is signed
    Column("code", Text, nullable=False),
    Column("seen", Json, nullable=False),
    Column("size", Integer, nullable=False),  # bytes of the body
    Column("kept", Integer, nullable=False),  # bytes of `head`
    Column("times", Integer, nullable=False),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    Column("headers", Json, nullable=False),
    Column("head", LargeBinary, nullable=False),  # the body's first bytes
    sqlite_autoincrement=True,
)
Index("refused_instance", refused.c.instance, refused.c.last_at)
refusals = Table(
    "refusals",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # 2026-11-20, UTC
    Column("code", Text, primary_key=True),
    Column("signed", Integer, nullable=False),  # 1: with a valid signature
    Column("times", Integer, nullable=False),
    Column("dropped", Integer, nullable=False),  # stored entries that were deleted to stay within the limits
    Column("last_at", Text, nullable=False),
)
_columns = refused.c
LISTED = tuple(column for column in _columns if column.name not in ("headers", "head"))
"""Columns of a list: all but the bytes."""


@dataclass(frozen=True)
class RefusedLimits:
    """Limits of the stored pushes of each instance; the oldest are deleted beyond them."""

    entries: int = 1000
    bytes: int = 8 * 1024 * 1024
    head: int = 16 * 1024
    """Bytes stored of one push."""
    age: timedelta = timedelta(days=30)
    every: int = 32
    """The limits are enforced once in so many entries, so they may be exceeded by as many."""


DEFAULT_LIMITS = RefusedLimits()


@dataclass(frozen=True)
class Refusal:
    """A push with a valid signature, and why it was refused."""

    instance: str
    ref: str
    delivery: str | None
    code: str
    seen: Mapping[str, Any]
    headers: Mapping[str, str]
    body: bytes
    at: datetime


class Reason(NamedTuple):
    """What refused pushes are counted by. `signed`: with a valid signature."""

    instance: str
    code: str
    signed: bool = False


@dataclass(frozen=True)
class Count:
    """How often pushes to an instance were refused for one reason, and when last."""

    instance: str
    code: str
    signed: bool
    times: int
    dropped: int
    last_at: str


def store(conn: Connection, refusal: Refusal, bounds: RefusedLimits = DEFAULT_LIMITS) -> None:
    """Store a refused push with a valid signature, and count it. The same push again updates its entry with the newest reason."""
    at, head = format_time(refusal.at), refusal.body[: bounds.head]
    seen = {name: str(fact) for name, fact in refusal.seen.items()}
    row = {
        "instance": refusal.instance,
        "ref": refusal.ref,
        "delivery": refusal.delivery,
        "code": refusal.code,
        "seen": seen,
        "size": len(refusal.body),
        "kept": len(head),
        "times": 1,
        "first_at": at,
        "last_at": at,
        "headers": dict(refusal.headers),
        "head": head,
    }
    if not insert_new(conn, refused, row, "ref"):
        again = {"times": _columns.times + 1, "last_at": at, "code": refusal.code, "seen": seen}
        conn.execute(update(refused).where(_columns.ref == refusal.ref).values(again))
    else:
        newest = conn.execute(select(_columns.id).where(_columns.ref == refusal.ref)).scalar_one()
        if newest % bounds.every == 0:
            make_room(conn, refusal.instance, refusal.at, bounds)
    _count(conn, refusal.instance, refusal.code, 1, at, signed=True)


def count(conn: Connection, counts_by_reason: Mapping[Reason, int], at: datetime) -> None:
    """Add to the counts; for pushes that are not stored."""
    for reason, times in sorted(counts_by_reason.items()):
        _count(conn, reason.instance, reason.code, times, format_time(at), signed=reason.signed)


def _count(conn: Connection, instance: str, code: str, times: int, at: str, *, signed: bool, dropped: int = 0) -> None:
    into = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    row = {"instance": instance, "day": at[:10], "code": code, "signed": int(signed)}
    statement = into(refusals).values(**row, times=times, dropped=dropped, last_at=at)
    more = {"times": refusals.c.times + times, "dropped": refusals.c.dropped + dropped, "last_at": at}
    conn.execute(statement.on_conflict_do_update(index_elements=["instance", "day", "code"], set_=more))


def make_room(conn: Connection, instance: str, now: datetime, bounds: RefusedLimits = DEFAULT_LIMITS) -> int:
    """Delete an instance's oldest entries until it is within its limits; returns how many. The counts keep them as dropped."""
    rows = conn.execute(
        select(_columns.id, _columns.code, _columns.kept, _columns.last_at)
        .where(_columns.instance == instance)
        .order_by(_columns.last_at.desc(), _columns.id.desc())
    ).all()
    remaining, excess = bounds.bytes, []
    for at, row in enumerate(rows):
        remaining -= row.kept
        if remaining < 0 or at >= bounds.entries:
            excess.append(row)
    conn.execute(delete(refused).where(_columns.id.in_([row.id for row in excess])))
    for code in {row.code for row in excess}:
        dropped = sum(row.code == code for row in excess)
        _count(conn, instance, code, 0, format_time(now), signed=True, dropped=dropped)
    return len(excess)


def forget(conn: Connection, now: datetime, bounds: RefusedLimits = DEFAULT_LIMITS) -> None:
    """Delete entries and counts older than `bounds.age`."""
    oldest = format_time(now - bounds.age)
    conn.execute(delete(refused).where(_columns.last_at < oldest))
    conn.execute(delete(refusals).where(refusals.c.day < oldest[:10]))


def counts(conn: Connection, since: datetime | None = None) -> Sequence[Count]:
    """Refused pushes by instance and reason since a day (None: since the oldest count). Signed ones first."""
    table = refusals.c
    summed = (func.sum(table.times), func.sum(table.dropped), func.max(table.last_at))
    found = select(table.instance, table.code, table.signed, *summed)
    if since is not None:
        found = found.where(table.day >= format_time(since)[:10])
    order = (table.signed.desc(), table.instance, table.code)
    rows = conn.execute(found.group_by(table.instance, table.code, table.signed).order_by(*order))
    return [Count(row[0], row[1], bool(row[2]), int(row[3]), int(row[4]), row[5]) for row in rows]


def page(
    conn: Connection, instance: str | None = None, before: int | None = None, limit: int = 100
) -> Sequence[AnyRow]:
    """Stored entries, newest first, without their bytes; pass the last id as `before` for the next page."""
    found = select(*LISTED).order_by(_columns.id.desc()).limit(limit)
    if instance is not None:
        found = found.where(_columns.instance == instance)
    if before is not None:
        found = found.where(_columns.id < before)
    return conn.execute(found).all()


def get(conn: Connection, number: int) -> AnyRow | None:
    """One entry with its bytes."""
    return conn.execute(select(refused).where(_columns.id == number)).first()


def has_tables(conn: Connection) -> bool:
    """Whether this ledger has the tables; one that is only read may be of an older hub."""
    return inspect(conn).has_table(refused.name)


def entry_count(conn: Connection) -> int:
    """The number of stored entries."""
    return int(conn.execute(select(func.count()).select_from(refused)).scalar_one())
