"""The few statements that SQLite and PostgreSQL both know and SQLAlchemy keeps under each one's name."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Column, Connection, CursorResult, Executable, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite

Row = tuple[Any, ...]


def insert_new(conn: Connection, table: Table, row: Mapping[str, Any], *key: str) -> int:
    """Insert a row unless its key is there; 1 if it was inserted."""
    return conn.execute(_insert_new(conn.dialect.name, table, key), dict(row)).rowcount


@functools.cache
def _insert_new(dialect: str, table: Table, key: tuple[str, ...]) -> Executable:
    """The statement, made once: making it costs more than carrying it out."""
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = into(table).on_conflict_do_nothing(index_elements=key)
    return statement.execution_options(preserve_rowcount=True)  # psycopg forgets it with the cursor otherwise


def put(conn: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *key: str) -> None:
    """Insert rows, or replace those with their keys. All name the same columns; nothing to do for none."""
    if rows:
        conn.execute(_put(conn.dialect.name, table, tuple(rows[0]), key), [dict(row) for row in rows])


@functools.lru_cache(256)
def _put(dialect: str, table: Table, columns: tuple[str, ...], key: tuple[str, ...]) -> Executable:
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = into(table)
    rest = {name: statement.excluded[name] for name in columns if name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=rest)


def insert_all(conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row], key: str) -> int:
    """Insert rows, in order, except those whose key is there; how many were inserted. One statement, however many rows."""
    if not rows:
        return 0
    return with_rows(conn, _insert_all(table, columns, key), _of(table, columns), rows).rowcount


def insert_all_new(
    conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row], key: str
) -> Sequence[Any]:
    """As `insert_all`; the keys of the rows that were inserted."""
    if not rows:
        return ()
    statement = f"{_insert_all(table, columns, key)} RETURNING {key}"
    return with_rows(conn, statement, _of(table, columns), rows).scalars().all()


def update_all(conn: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[Row]) -> None:
    """Set columns of rows; the first column is the key. One statement, however many rows; nothing to do for none."""
    if rows:
        with_rows(conn, _update_all(table, columns), _of(table, columns), rows)


def with_rows(
    conn: Connection, statement: str, columns: tuple[Column[Any], ...], rows: Sequence[Row]
) -> CursorResult[Any]:
    """Execute a statement in which `{given}` stands for a query that gives these rows, of the types of these columns.

    The database's own driver is used, without SQLAlchemy's work for each row; each value must be one that it takes as it is.
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
    name, key, changed = table.name, columns[0], ", ".join(f"{each} = given.{each}" for each in columns[1:])
    given = f"WITH given ({', '.join(columns)}) AS ({{given}})"
    return f"{given} UPDATE {name} SET {changed} FROM given WHERE {name}.{key} = given.{key}"  # noqa: S608  # names of ours


@functools.cache
def _of(table: Table, columns: tuple[str, ...]) -> tuple[Column[Any], ...]:
    return tuple(table.c[name] for name in columns)


@functools.cache
def _arrays(columns: tuple[Column[Any], ...]) -> str:
    """An array for each column: the statement is the same for any number of rows, so that the server prepares it once."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it
    arrays = ", ".join([f"%s::{column.type.compile(dialect)}[]" for column in columns])
    return f"SELECT * FROM unnest({arrays})"  # noqa: S608  # names of types


@functools.lru_cache(1024)
def _values(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"VALUES {', '.join([row] * rows)}"


def each(conn: Connection, statement: Executable, values: Sequence[Mapping[str, Any]]) -> None:
    """Execute once for each set of values; nothing to do for none."""
    if values:
        conn.execute(statement, values)


def bound(name: str) -> BindParameter[Any]:
    """A value that `each` gives. The name must be no column's."""
    return bindparam(name)
