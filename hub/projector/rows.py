"""Reads and writes a board's rows in the caller's transaction, with plain values and the driver's own fast paths.

SQLAlchemy's layers cost several times as much as the database's own work on a row. So statements are built once per table and take
values that need no conversion; PostgreSQL receives large batches by COPY into a temporary table and upserts from there.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
from sqlalchemy import JSON, Boolean, Connection, Table
from sqlalchemy.exc import DBAPIError

from hub.kit.projection import Row, Rows
from hub.projector.folding import RowChange

COPY_THRESHOLD = 20
"""Number of rows up to which a plain upsert is faster than COPY."""
PAGE_ROWS = 2000
"""Rows read per statement."""


def read_rows(conn: Connection, table: Table, keys: Iterable[str]) -> Iterator[tuple[str, Row]]:
    """(key, row) for those of these keys that exist, in any order; a row does not contain its key."""
    form, wanted = _form(table, conn.dialect.name), list(keys)
    for start in range(0, len(wanted), PAGE_ROWS):
        yield from form.rows(conn.exec_driver_sql(form.select, (form.among(wanted[start : start + PAGE_ROWS]),)))


def all_rows(conn: Connection, table: Table) -> Iterator[tuple[str, Row]]:
    """Every (key, row), page by page, in the database's order of keys."""
    form, last = _form(table, conn.dialect.name), ""
    while page := list(form.rows(conn.exec_driver_sql(form.page, (last, PAGE_ROWS)))):
        yield from page
        last = page[-1][0]


def write_changes(conn: Connection, table: Table, changes: Mapping[str, RowChange]) -> None:
    """Upsert rows that are new or changed, and delete rows without an `after`."""
    form = _form(table, conn.dialect.name)
    if conn.dialect.name == "postgresql":
        _write_whole(conn, form, [form.values(key, c.after) for key, c in changes.items() if c.after is not None])
    else:
        _write_by_columns(conn, form, changes)
    deleted = [key for key, change in changes.items() if change.after is None]
    for start in range(0, len(deleted), PAGE_ROWS):
        conn.exec_driver_sql(form.delete, (form.among(deleted[start : start + PAGE_ROWS]),))


def _write_whole(conn: Connection, form: UpsertStatements, rows: list[tuple[Any, ...]]) -> None:
    if len(rows) > COPY_THRESHOLD:
        _copy(conn, form, rows)
    elif rows:
        conn.exec_driver_sql(form.upsert, rows)


def _write_by_columns(conn: Connection, form: UpsertStatements, changes: Mapping[str, RowChange]) -> None:
    """Update only changed columns: SQLite rewrites every index that contains a column of the statement."""
    for statement, rows in form.grouped(changes).items():
        conn.exec_driver_sql(statement, rows)


def _copy(conn: Connection, form: UpsertStatements, rows: Rows) -> None:
    conn.exec_driver_sql(form.staging)
    copy_rows(conn, form.copy, rows)
    conn.exec_driver_sql(form.merge)


def copy_rows(conn: Connection, statement: str, rows: Rows) -> None:
    """Insert these rows by PostgreSQL's COPY FROM STDIN."""
    connection: Any = conn.connection.driver_connection  # psycopg's own connection: SQLAlchemy has no COPY
    with _translated(conn, statement), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


@contextmanager
def _translated(conn: Connection, statement: str) -> Iterator[None]:
    """Wrap the driver's exceptions, which SQLAlchemy does not see here, as SQLAlchemy's DBAPIError."""
    base = conn.dialect.loaded_dbapi.Error
    try:
        yield
    except base as error:
        disconnected = conn.dialect.is_disconnect(error, conn.connection, None)
        raise DBAPIError.instance(
            statement, None, error, base, connection_invalidated=disconnected, dialect=conn.dialect
        ) from error


class UpsertStatements:
    """The statements for one table in one dialect, and the conversion of its rows."""

    def __init__(self, table: Table, dialect: str) -> None:
        columns = [column for column in table.columns if column.name != "key"]
        self.postgres = dialect == "postgresql"
        self.names = [str(column.name) for column in columns]
        self.into = _quoted(table.name)
        self.nulls = {
            at: None if getattr(column.type, "none_as_null", False) else "null"
            for at, column in enumerate(columns)
            if isinstance(column.type, JSON)
        }
        self.json = [self.names[at] for at in self.nulls]
        self.booleans = [str(c.name) for c in columns if isinstance(c.type, Boolean) and not self.postgres]
        mark, into, staged = "%s" if self.postgres else "?", self.into, _quoted(f"{table.name}__new")
        column_list = ", ".join(["key", *map(_quoted, self.names)])
        assignments = ", ".join(f"{_quoted(name)} = excluded.{_quoted(name)}" for name in self.names)
        conflict = f"ON CONFLICT (key) DO UPDATE SET {assignments}"
        read = ["key", *(self._read(at, name) for at, name in enumerate(self.names))]
        among = f"key = ANY({mark})" if self.postgres else "key IN (SELECT value FROM json_each(?))"
        insert, marks, select = _sql("INSERT INTO", into), ", ".join([mark] * (len(columns) + 1)), ", ".join(read)
        self.upsert = _sql(insert, f"({column_list}) VALUES ({marks})", conflict)
        self.select = _sql("SELECT", select, "FROM", into, "WHERE", among)
        self.page = _sql("SELECT", select, "FROM", into, f"WHERE key > {mark} ORDER BY key LIMIT {mark}")
        self.delete = _sql("DELETE FROM", into, "WHERE", among)
        self.staging = f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE {into}) ON COMMIT DELETE ROWS"
        self.copy = f"COPY {staged} ({column_list}) FROM STDIN"
        self.merge = _sql(insert, f"({column_list}) SELECT", column_list, "FROM", staged, conflict)

    def _read(self, at: int, name: str) -> str:
        """Select JSON as text, so that orjson decodes it and not the driver."""
        return f"{_quoted(name)}::text" if self.postgres and at in self.nulls else _quoted(name)

    def among(self, keys: list[str]) -> Any:
        """Keys as the single parameter of a statement."""
        return keys if self.postgres else orjson.dumps(keys).decode()

    def values(self, key: str, row: Row) -> tuple[Any, ...]:
        """A row as the driver's parameters."""
        values = [key, *map(row.__getitem__, self.names)]
        for at, null in self.nulls.items():
            value = values[at + 1]
            values[at + 1] = null if value is None else as_json(value).decode()
        return tuple(values)

    def grouped(self, changes: Mapping[str, RowChange]) -> Mapping[str, list[tuple[Any, ...]]]:
        """Statement → values: an insert for new rows, and for the others updates of the columns that differ."""
        groups: dict[tuple[int, ...] | None, list[tuple[Any, ...]]] = {}
        for key, change in changes.items():
            if change.after is None:
                continue
            values, before = self.values(key, change.after), change.before
            if before is None:
                groups.setdefault(None, []).append(values)
                continue
            differ = [at for at, name in enumerate(self.names, 1) if before[name] != change.after[name]]
            groups.setdefault(tuple(differ), []).append((*[values[at] for at in differ], key))
        return {self.upsert if differ is None else self._update(differ): rows for differ, rows in groups.items()}

    def _update(self, differ: Iterable[int]) -> str:
        assignments = ", ".join(f"{_quoted(self.names[at - 1])} = ?" for at in differ)
        return _sql("UPDATE", self.into, "SET", assignments, "WHERE key = ?")

    def rows(self, found: Iterable[Sequence[Any]]) -> Iterator[tuple[str, Row]]:
        """Fetched rows as (key, row), decoded for a fold."""
        for key, *values in found:
            row = dict(zip(self.names, values, strict=True))
            for name in self.json:
                if row[name] is not None:
                    row[name] = orjson.loads(row[name])
            for name in self.booleans:
                row[name] = bool(row[name])
            yield key, row


def as_json(value: Any, options: int = 0) -> bytes:
    """JSON of a value, including integers beyond 64 bits, which orjson rejects."""
    try:
        return orjson.dumps(value, option=options)
    except TypeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@functools.lru_cache(64)
def _form(table: Table, dialect: str) -> UpsertStatements:
    return UpsertStatements(table, dialect)


def _quoted(name: str) -> str:
    return f'"{name}"'


def _sql(*words: str) -> str:
    return " ".join(words)
