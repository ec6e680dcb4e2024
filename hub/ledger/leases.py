"""Leases for jobs that only one process at a time may do. Expiry uses the database's clock, so hosts' clocks need not agree."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Connection, Float, Table, Text, func, literal_column, or_, select, update

from hub.ledger.database import bound, insert_new, metadata

leases = Table(
    "leases",
    metadata,
    Column("job", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires", Float, nullable=False),
)


# Executed in every round of every loop, so built once: building a statement costs more than executing it.
_TIME = {
    "postgresql": select(func.extract("epoch", func.clock_timestamp())),
    "sqlite": select(literal_column("(julianday('now') - 2440587.5) * 86400.0")),
}
_HELD = select(leases.c.job).where(
    leases.c.job == bound("of"), leases.c.owner == bound("by"), leases.c.epoch == bound("under")
)


def database_time(conn: Connection) -> float:
    """Seconds since 1970 by the database's clock."""
    return float(conn.execute(_TIME[conn.dialect.name]).scalar_one())


def acquire(conn: Connection, job: str, owner: str, seconds: float) -> int | None:
    """Acquire or renew the lease for so many seconds; returns its epoch, or None while another owner has it."""
    now = database_time(conn)
    insert_new(conn, leases, {"job": job, "owner": "", "epoch": 0, "expires": 0.0}, "job")
    mine = leases.c.owner == owner
    renewal = update(leases).where(leases.c.job == job, mine).values(expires=now + seconds)
    if conn.execute(renewal).rowcount == 0:
        free = or_(leases.c.owner == "", leases.c.expires < now)
        takeover = update(leases).where(leases.c.job == job, free)
        if conn.execute(takeover.values(owner=owner, epoch=leases.c.epoch + 1, expires=now + seconds)).rowcount == 0:
            return None
    epoch: int = conn.execute(select(leases.c.epoch).where(leases.c.job == job)).scalar_one()
    return epoch


def owner_of(conn: Connection, job: str) -> str | None:
    """The owner of the lease, which may have expired; None when it was released or never acquired."""
    return conn.execute(select(leases.c.owner).where(leases.c.job == job)).scalar_one_or_none() or None


def holds(conn: Connection, job: str, owner: str, epoch: int) -> bool:
    """Whether this owner still holds the lease under this epoch."""
    return conn.execute(_HELD, {"of": job, "by": owner, "under": epoch}).first() is not None


def release(conn: Connection, job: str, owner: str) -> None:
    """Release the lease, so that the next owner need not wait for it to expire."""
    conn.execute(update(leases).where(leases.c.job == job, leases.c.owner == owner).values(owner="", expires=0.0))
