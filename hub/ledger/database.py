"""Opening a database of the hub's: SQLite or PostgreSQL, one code path, brought to its current tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

from hub.errors import FatalError, HubError, RetryableError
from hub.failpoints import reach

BUSY_SECONDS = 30
DAMAGED = "HUB-E5008"
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")


def open_engine(url: str) -> Engine:
    """An engine whose transactions are durable when they commit. Opens no connection yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        return _sqlite(url)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8, connect_args={"connect_timeout": 10})
    raise FatalError("HUB-E5001", url=parsed.render_as_string(hide_password=True))


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that will write must say so first: two that begin by reading cannot both go on to write.
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "handle_error", _ended)
    return engine


def _ended(error: ExceptionContext) -> None:
    """SQLite ends a transaction by itself when a disk is full or fails in the middle of a statement.

    What was done before is undone then, and what came after would be kept on its own, under the eyes of who thinks it is all one.
    So the connection is given up: whoever goes on with it is refused.
    """
    raw: object = error.connection.connection.dbapi_connection if error.connection is not None else None
    begun = error.statement is not None and not error.statement.startswith("BEGIN")
    if begun and isinstance(raw, sqlite3.Connection) and not raw.in_transaction:
        error.is_disconnect = True
        error.invalidate_pool_on_disconnect = False  # the other connections are as they were


@contextmanager
def writing(engine: Engine, what: str = "ledger") -> Iterator[Connection]:
    """A transaction that commits at its end; database errors come out as ours. `what` is written names its failpoints."""
    with translated(engine), engine.begin() as conn:
        yield conn
        reach(f"{what}.before-commit")
    reach(f"{what}.committed")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent look at the database."""
    with translated(engine), engine.connect().execution_options(reading=True) as conn, conn.begin():
        yield conn


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn a database's errors into ours: away or busy can be tried again, the rest cannot."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or is_passing(error) or is_damage(error):
            raise unavailable(engine, error) from error
        raise
    except PendingRollbackError as error:
        raise RetryableError("HUB-E5002", url=shown(engine), reason="the transaction has ended") from error


def shown(engine: Engine) -> str:
    """Where a database is, without its password."""
    return engine.url.render_as_string(hide_password=True)


def shown_url(url: str) -> str:
    """A database's address as people may see it: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def unavailable(engine: Engine, error: DBAPIError) -> HubError:
    """The error that says the database is away, busy, full or damaged."""
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    where = shown(engine)
    if is_damage(error):
        return FatalError(DAMAGED, url=where, reason=reason)
    if "full" in reason or "No space" in reason:
        return RetryableError("HUB-E5003", url=where, reason=reason)
    return RetryableError("HUB-E5002", url=where, reason=reason)


def is_passing(error: DBAPIError) -> bool:
    """Serialization failures, deadlocks, a disk that is full, a standby that is not promoted yet: the same work again will do."""
    return isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", None) in {"40001", "40P01", "25006"}


def is_damage(error: DBAPIError) -> bool:
    """Whether SQLite cannot make sense of its file."""
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(_DAMAGE)


def is_a_file(url: str) -> bool:
    """Whether the database is a file, which can be renamed."""
    return make_url(url).get_backend_name() == "sqlite"


def set_aside_whole(url: str, why: str) -> Path | None:
    """As `set_aside`, for a sound file that nobody has open: what waits in its log beside it is written into it first."""
    if not is_a_file(url):
        return None
    engine = open_engine(url)
    with translated(engine), engine.connect().execution_options(reading=True) as conn:
        raw: Any = conn.connection.dbapi_connection
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return set_aside(url, why)


def set_aside(url: str, why: str = "damaged") -> Path | None:
    """Rename a SQLite file, so that a new one is made in its place; its new name, None where there is no such file."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not Path(parsed.database).exists():
        return None
    file = Path(parsed.database)
    aside = file.with_name(f"{file.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)  # of no use without it, and taken for the new one's
    return file.rename(aside)


def migrate(engine: Engine, script: Path, head: str) -> None:
    """Bring the tables to revision `head` by the alembic scripts in `script`; quick when they are there."""
    if _revision(engine) == head:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(script))
    with writing(engine) as conn:
        if engine.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(4207849484)"))  # two programs that start together
        config.attributes["connection"] = conn
        command.upgrade(config, head)


def _revision(engine: Engine) -> str | None:
    try:
        with engine.connect().execution_options(reading=True) as conn:
            found: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
            return found
    except DBAPIError as error:
        if _is_missing(error):
            return None
        raise unavailable(engine, error) from error


def _is_missing(error: DBAPIError) -> bool:
    original: Any = error.orig
    return getattr(original, "sqlstate", None) == "42P01" or "no such table" in str(original)
