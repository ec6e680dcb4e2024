"""The yardstick of the boards: one upsert by the driver's own `executemany`, rows and position in a transaction, nothing else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from sqlalchemy import JSON, Table
from sqlalchemy.engine import URL

from hub.kit.projection import Row

Write = Callable[[Mapping[str, Row]], None]


def writer(url: URL, table: Table) -> Write:
    """Writes batches by a connection of its own, with the flushing that boards have."""
    if url.get_backend_name() == "sqlite":
        return _by_sqlite(str(url.database), table)
    return _by_psycopg(url.set(drivername="postgresql").render_as_string(hide_password=False), table)


def _by_psycopg(address: str, table: Table) -> Write:
    conn = psycopg.connect(address)
    upsert, position = _upsert(table, "%s"), _position("%s")

    def write(rows: Mapping[str, Row]) -> None:
        with conn.cursor() as cursor:
            cursor.executemany(upsert, [_values(table, key, row) for key, row in rows.items()])
            cursor.execute(position, [len(rows)])
        conn.commit()

    return write


def _by_sqlite(file: str, table: Table) -> Write:
    conn = sqlite3.connect(file, isolation_level=None, timeout=30)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16000"):
        conn.execute(f"PRAGMA {pragma}")
    upsert, position = _upsert(table, "?"), _position("?")

    def write(rows: Mapping[str, Row]) -> None:
        conn.execute("BEGIN IMMEDIATE")
        conn.executemany(upsert, [_values(table, key, row) for key, row in rows.items()])
        conn.execute(position, [len(rows)])
        conn.execute("COMMIT")

    return write


def _upsert(table: Table, mark: str) -> str:
    names = [f'"{column.name}"' for column in table.columns]
    told = ", ".join(f"{name} = excluded.{name}" for name in names if name != '"key"')
    marks = ", ".join(mark for _ in names)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {told}"


def _position(mark: str) -> str:
    return f"UPDATE board_positions SET next_offset = {mark} WHERE projection = 'by hand'"


def _values(table: Table, key: str, row: Row) -> list[Any]:
    return [
        key if column.name == "key" else _plain(row[column.name], isinstance(column.type, JSON))
        for column in table.columns
    ]


def _plain(value: Any, is_json: bool) -> Any:
    return json.dumps(value) if is_json and value is not None else value
