"""The few statements that SQLite and PostgreSQL both know and SQLAlchemy keeps under each one's name."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import BindParameter, Connection, Executable, Table, bindparam
from sqlalchemy.dialects import postgresql, sqlite


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


def each(conn: Connection, statement: Executable, values: Sequence[Mapping[str, Any]]) -> None:
    """Execute once for each set of values; nothing to do for none."""
    if values:
        conn.execute(statement, values)


def bound(name: str) -> BindParameter[Any]:
    """A value that `each` gives. The name must be no column's."""
    return bindparam(name)
