"""Who may do a job that only one program at a time may do. Times are the database's own, so that clocks need not agree."""

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


# Asked in every round of every loop: made once, as making a statement costs more than carrying it out.
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
    """Take or keep the job for so long: its epoch, or None while another has it."""
    now = database_time(conn)
    insert_new(conn, leases, {"job": job, "owner": "", "epoch": 0, "expires": 0.0}, "job")
    mine = leases.c.owner == owner
    kept = update(leases).where(leases.c.job == job, mine).values(expires=now + seconds)
    if conn.execute(kept).rowcount == 0:
        free = or_(leases.c.owner == "", leases.c.expires < now)
        taken = update(leases).where(leases.c.job == job, free)
        if conn.execute(taken.values(owner=owner, epoch=leases.c.epoch + 1, expires=now + seconds)).rowcount == 0:
            return None
    epoch: int = conn.execute(select(leases.c.epoch).where(leases.c.job == job)).scalar_one()
    return epoch


def owner_of(conn: Connection, job: str) -> str | None:
    """Who has the job, perhaps no longer; None when nobody does."""
    return conn.execute(select(leases.c.owner).where(leases.c.job == job)).scalar_one_or_none() or None


def holds(conn: Connection, job: str, owner: str, epoch: int) -> bool:
    """Whether the job is still this owner's, under this epoch."""
    return conn.execute(_HELD, {"of": job, "by": owner, "under": epoch}).first() is not None


def let_go(conn: Connection, job: str, owner: str) -> None:
    """Give the job up, so that the next need not wait for it to expire."""
    conn.execute(update(leases).where(leases.c.job == job, leases.c.owner == owner).values(owner="", expires=0.0))
