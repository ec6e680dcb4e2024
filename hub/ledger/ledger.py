"""The ledger, opened: its tables in place, its writer running.

Looking at a database that another program writes: one consistent look, and nothing is made by it.
"""

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
def look_at(url: str, table: str) -> Iterator[Connection | None]:
    """One consistent look at a database; None when it lacks this table. Writes nothing, not even a file."""
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
"""The modules whose tables make up `metadata`."""


class Ledger:
    """One program's door to the ledger. Opening it waits for a database that is busy and raises RetryableError for one away."""

    outages: int = 0
    """How often a connection has broken so far: it may be another server that answers now."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        migrate(self.engine, MIGRATIONS, HEAD)
        self.writer = LedgerWriter(self.engine)
        self.outbox_id = self.writer.run(identity.outbox_id)
        event.listen(self.engine, "handle_error", self._count_outage)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look."""
        with reading(self.engine) as conn:
            yield conn

    def continue_outbox(self, name: str | None) -> None:
        """Go on with the sequences of a ledger that is gone, unless this one has given its own.

        With None, only hear what another program of this ledger has settled on.
        """
        self.outbox_id = self.writer.run(lambda conn: _continued(conn, name))

    def _count_outage(self, error: ExceptionContext) -> None:
        self.outages += error.is_disconnect

    def close(self) -> None:
        """Finish what was asked of the writer, and let go of the database."""
        self.writer.close()
        self.engine.dispose()


def _continued(conn: Connection, name: str | None) -> str:
    if name is not None and not outbox.sequence_ends(conn):
        identity.continue_outbox(conn, name)
    return identity.outbox_id(conn)


__all__ = ["HEAD", "MIGRATIONS", "TABLES", "Ledger", "metadata"]
