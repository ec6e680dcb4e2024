"""Database access for SQLite and PostgreSQL in one code path: engines, transactions, errors, migrations and bulk statements.

It also defines what the ledger's tables share: `metadata` and the column types.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    Column,
    Connection,
    CursorResult,
    Engine,
    ExceptionContext,
    Executable,
    Integer,
    MetaData,
    Row,
    Table,
    bindparam,
    create_engine,
    event,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

from hub.errors import FatalError, HubError, RetryableError
from hub.runtime.failpoints import failpoint

metadata = MetaData()
"""Time columns hold a `schemas.envelope.Timestamp`: text that sorts by time, the same in both databases."""

AnyRow = Row[*tuple[Any, ...]]

Serial = BigInteger().with_variant(Integer(), "sqlite")
"""An auto-increment key; SQLite increments only INTEGER keys."""
Json = JSON().with_variant(postgresql.JSONB(), "postgresql").with_variant(sqlite.JSON(), "sqlite")


BUSY_TIMEOUT_S = 30
DAMAGED = "HUB-E5008"
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")


def open_engine(url: str) -> Engine:
    """An engine whose transactions are durable once committed. Opens no connection yet."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        return _sqlite(url)
    if parsed.get_backend_name() == "postgresql":
        return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=8, connect_args={"connect_timeout": 10})
    raise FatalError("HUB-E5001", url=parsed.render_as_string(hide_password=True))


def _sqlite(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin explicitly, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writing transaction takes the write lock at once: of two that begin by reading, one could not go on to write.
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "handle_error", _invalidate_after_rollback)
    return engine


def _invalidate_after_rollback(error: ExceptionContext) -> None:
    """Invalidate a connection whose transaction SQLite rolled back by itself: the disk was full or failed during a statement.

    Later statements on it would otherwise commit without the earlier ones, though the caller takes them for one transaction.
    """
    raw: object = error.connection.connection.dbapi_connection if error.connection is not None else None
    in_transaction = error.statement is not None and not error.statement.startswith("BEGIN")
    if in_transaction and isinstance(raw, sqlite3.Connection) and not raw.in_transaction:
        error.is_disconnect = True
        error.invalidate_pool_on_disconnect = False  # the other connections are intact


@contextmanager
def writing(engine: Engine, what: str = "ledger") -> Iterator[Connection]:
    """A transaction that commits at its end; database errors are translated to ours. `what` is the prefix of its failpoints."""
    with translated(engine), engine.begin() as conn:
        yield conn
        failpoint(f"{what}.before-commit")
    failpoint(f"{what}.committed")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read-only transaction: one consistent snapshot of the database."""
    with translated(engine), engine.connect().execution_options(reading=True) as conn, conn.begin():
        yield conn


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Translate database errors into ours: an unavailable or busy one is retryable, a damaged one fatal; the rest pass through."""
    try:
        yield
    except DBAPIError as error:
        if error.connection_invalidated or is_transient(error) or is_damage(error):
            raise unavailable(engine, error) from error
        raise
    except PendingRollbackError as error:
        raise RetryableError("HUB-E5002", url=shown(engine), reason="the transaction has ended") from error


def shown(engine: Engine) -> str:
    """The database's URL without its password."""
    return engine.url.render_as_string(hide_password=True)


def shown_url(url: str) -> str:
    """A database URL without its password, for display."""
    return make_url(url).render_as_string(hide_password=True)


def unavailable(engine: Engine, error: DBAPIError) -> HubError:
    """Our error for a database that is unavailable, busy, full or damaged."""
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    where = shown(engine)
    if is_damage(error):
        return FatalError(DAMAGED, url=where, reason=reason)
    if "full" in reason or "No space" in reason:
        return RetryableError("HUB-E5003", url=where, reason=reason)
    return RetryableError("HUB-E5002", url=where, reason=reason)


def is_transient(error: DBAPIError) -> bool:
    """Whether repeating the work can succeed: serialization failure, deadlock, full disk, a standby that is not promoted yet."""
    return isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", None) in {"40001", "40P01", "25006"}


def is_damage(error: DBAPIError) -> bool:
    """Whether SQLite reports its file as corrupt."""
    return str(getattr(error.orig, "sqlite_errorname", "")).startswith(_DAMAGE)


def is_a_file(url: str) -> bool:
    """Whether the database is a file, which can be renamed."""
    return make_url(url).get_backend_name() == "sqlite"


def set_aside_whole(url: str, why: str) -> Path | None:
    """As `set_aside`, for an intact file that no process has open: its write-ahead log is checkpointed into it first."""
    if not is_a_file(url):
        return None
    engine = open_engine(url)
    with translated(engine), engine.connect().execution_options(reading=True) as conn:
        raw: Any = conn.connection.dbapi_connection
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    engine.dispose()
    return set_aside(url, why)


def set_aside(url: str, why: str = "damaged") -> Path | None:
    """Rename a SQLite file, so that a new one is created in its place; returns its new path, None where there is no such file."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or not Path(parsed.database).exists():
        return None
    file = Path(parsed.database)
    aside = file.with_name(f"{file.name}.{why}-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(
            missing_ok=True
        )  # useless without it, and SQLite would apply them to the new file
    return file.rename(aside)


def migrate(engine: Engine, script: Path, head: str) -> None:
    """Migrate the tables to revision `head` with the alembic scripts in `script`; quick when they are at it already."""
    if _revision(engine) == head:
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(script))
    with writing(engine) as conn:
        if engine.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(4207849484)"))  # two processes may start at once
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


Values = tuple[Any, ...]


def insert_new(conn: Connection, table: Table, row: Mapping[str, Any], *key: str) -> int:
    """Insert a row unless its key exists; 1 if it was inserted."""
    return conn.execute(_insert_new(conn.dialect.name, table, key), dict(row)).rowcount


@functools.cache
def _insert_new(dialect: str, table: Table, key: tuple[str, ...]) -> Executable:
    """The statement, built once: building it costs more than executing it."""
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = into(table).on_conflict_do_nothing(index_elements=key)
    return statement.execution_options(preserve_rowcount=True)  # psycopg drops it with the cursor otherwise


def upsert(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *key: str) -> None:
    """Insert rows, or update those whose key exists. All rows have the same columns; no rows is a no-op."""
    if rows:
        conn.execute(_put(conn.dialect.name, table, tuple(rows[0]), key), [dict(row) for row in rows])


@functools.lru_cache(256)
def _put(dialect: str, table: Table, columns: tuple[str, ...], key: tuple[str, ...]) -> Executable:
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = into(table)
    rest = {name: statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=rest)


def insert_all(conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Values], key: str) -> int:
    """Insert rows in order, except those whose key exists; returns how many were inserted. One statement for any number of rows."""
    if not rows:
        return 0
    return with_rows(conn, _insert_all(table, columns, key), _of(table, columns), rows).rowcount


def insert_all_new(
    conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Values], key: str
) -> Sequence[Any]:
    """As `insert_all`; returns the keys of the inserted rows."""
    if not rows:
        return ()
    statement = f"{_insert_all(table, columns, key)} RETURNING {key}"
    return with_rows(conn, statement, _of(table, columns), rows).scalars().all()


def update_all(conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Values]) -> None:
    """Update columns of rows; the first column is the key. One statement for any number of rows; no rows is a no-op."""
    if rows:
        with_rows(conn, _update_all(table, columns), _of(table, columns), rows)


def with_rows(
    conn: Connection, statement: str, columns: tuple[Column[Any], ...], rows: Sequence[Values]
) -> CursorResult[Any]:
    """Execute a statement in which `{given}` is replaced by a query that yields these rows, with the types of these columns.

    It goes directly to the database driver, without SQLAlchemy's cost for each row; the driver must accept each value as it is.
    """
    if conn.dialect.name == "postgresql":
        query, values = _arrays(columns), tuple([row[at] for row in rows] for at in range(len(columns)))
    else:
        query, values = _values(len(columns), len(rows)), tuple(itertools.chain.from_iterable(rows))
    return conn.exec_driver_sql(statement.format(given=query), values, execution_options={"preserve_rowcount": True})


@functools.cache
def _insert_all(table: Table, columns: tuple[str, ...], key: str) -> str:
    return f"INSERT INTO {table.name} ({', '.join(columns)}) {{given}} ON CONFLICT ({key}) DO NOTHING"


@functools.cache
def _update_all(table: Table, columns: tuple[str, ...]) -> str:
    name, key, changed = (
        table.name,
        columns[0],
        ", ".join(f"{column} = given.{column}" for column in columns[1:]),
    )
    given = f"WITH given ({', '.join(columns)}) AS ({{given}})"
    return f"{given} UPDATE {name} SET {changed} FROM given WHERE {name}.{key} = given.{key}"  # noqa: S608  # names of ours


@functools.cache
def _of(table: Table, columns: tuple[str, ...]) -> tuple[Column[Any], ...]:
    return tuple(table.c[name] for name in columns)


@functools.cache
def _arrays(columns: tuple[Column[Any], ...]) -> str:
    """One array for each column: the statement text is the same for any number of rows, so the server prepares it once."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
    arrays = ", ".join([f"%s::{column.type.compile(dialect)}[]" for column in columns])
    return f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of types


@functools.lru_cache(1024)
def _values(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


def execute_each(conn: Connection, statement: Executable, values: Sequence[Mapping[str, Any]]) -> None:
    """Execute the statement once for each set of values; no values is a no-op."""
    if values:
        conn.execute(statement, values)


def bound(name: str) -> BindParameter[Any]:
    """A bound parameter. Its name must not be a column's."""
    return bindparam(name)
