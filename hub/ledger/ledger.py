"""Opens the ledger: migrated tables and a running writer, or a read-only snapshot of a database that another process writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, ExceptionContext, event

from hub.ledger import (
    commands,
    conflicts,
    cursors,
    identity,
    leases,
    links,
    outbox,
    parked,
    positions,
    refused,
    timers,
    trimmed,
)
from hub.ledger.database import metadata, migrate, open_engine, reading
from hub.ledger.writer import LedgerWriter

if TYPE_CHECKING:
    from sqlalchemy import Connection


@contextlib.contextmanager
def read_snapshot(url: str, table: str) -> Iterator[Connection | None]:
    """A consistent snapshot of a database; None when it lacks this table. Writes nothing and creates no file."""
    from sqlalchemy import inspect
    from sqlalchemy.engine import make_url

    from hub.ledger.database import open_engine, reading

    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        yield None
        return
    engine = open_engine(url)
    try:
        with reading(engine) as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield conn if inspect(conn).has_table(table) else None
    finally:
        engine.dispose()


HEAD = "0006"
MIGRATIONS = Path(__file__).parent / "migrations"
TABLES = (commands, conflicts, cursors, identity, leases, links, outbox, parked, positions, refused, timers, trimmed)
"""The modules that register their tables in `metadata`."""


class Ledger:
    """A process's handle on the ledger. Opening waits for a busy database and raises RetryableError for an unavailable one."""

    outages: int = 0
    """How many connections have broken so far; after each, another server may be answering."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        migrate(self.engine, MIGRATIONS, HEAD)
        self.writer = LedgerWriter(self.engine)
        self.outbox_id = self.writer.run(identity.outbox_id)
        event.listen(self.engine, "handle_error", self._count_outage)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read-only transaction: one consistent snapshot."""
        with reading(self.engine) as conn:
            yield conn

    def continue_outbox(self, name: str | None) -> None:
        """Take over the outbox name, and so the sequences, of a lost ledger, unless this outbox has assigned sequences already.

        With None, only read the name that another process of this ledger has chosen.
        """
        self.outbox_id = self.writer.run(lambda conn: _continued(conn, name))

    def _count_outage(self, error: ExceptionContext) -> None:
        self.outages += error.is_disconnect

    def close(self) -> None:
        """Commit the requests queued at the writer, and close the connections."""
        self.writer.close()
        self.engine.dispose()


def _continued(conn: Connection, name: str | None) -> str:
    if name is not None and not outbox.sequence_ends(conn):
        identity.continue_outbox(conn, name)
    return identity.outbox_id(conn)


__all__ = ["HEAD", "MIGRATIONS", "TABLES", "Ledger", "metadata"]
