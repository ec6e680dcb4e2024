"""Inserts rows into append-only tables, in the caller's transaction, through the driver's own fast paths as in `rows`."""

from __future__ import annotations

import functools
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from hub.kit.projection import Rows
from hub.projector.rows import COPY_THRESHOLD, PAGE_ROWS, copy_rows


def add_rows(conn: Connection, table: Table, rows: Rows) -> None:
    """Insert rows; in a table with a primary key, an existing row is left unchanged."""
    if not rows:
        return
    form = _form(table, conn.dialect.name)
    if conn.dialect.name != "postgresql" or len(rows) <= COPY_THRESHOLD:
        conn.exec_driver_sql(form.insert, list(rows))
    elif not table.primary_key.columns:
        copy_rows(conn, form.copy, rows)
    else:
        conn.exec_driver_sql(form.staging)
        copy_rows(conn, form.stage, rows)
        conn.exec_driver_sql(form.merge)


def block_hashes(conn: Connection, table: Table) -> tuple[dict[str, bytes], int]:
    """The hash of each block of rows, and the number of rows.

    A block's hash is the sum of its row hashes, independent of their order; a block is named by its table and what its rows share.
    """
    sums: dict[str, int] = {}
    count, block_of = 0, _offset_block if "offset" in table.c else _key_block
    for row in conn.execution_options(yield_per=PAGE_ROWS).execute(select(table)):
        count += 1
        block = block_of(row)
        encoded = repr(tuple(row)).encode(errors="surrogatepass")
        sums[block] = sums.get(block, 0) + int.from_bytes(blake2b(encoded, digest_size=16).digest())
    name = table.name.removesuffix("__shadow")
    return {f"{name} {block}": (total % _HASH_MODULUS).to_bytes(16) for block, total in sums.items()}, count


_HASH_MODULUS = 1 << 128


def _offset_block(row: Row[Any]) -> str:
    """The block of a log position: a thousand offsets of a partition."""
    start = row.offset - row.offset % 1000
    return f"{row.partition}:{start}–{start + 999}"


def _key_block(row: Row[Any]) -> str:
    """The block of a hashed key: its low 12 bits."""
    return f"{row[0] & 0xFFF:03x}"


class InsertStatements:
    """The statements for one table in one dialect."""

    def __init__(self, table: Table, dialect: str) -> None:
        into, staged = f'"{table.name}"', f'"{table.name}__new"'
        columns = ", ".join(f'"{column.name}"' for column in table.columns)
        marks = ", ".join(["%s" if dialect == "postgresql" else "?"] * len(table.columns))
        on_conflict = " ON CONFLICT DO NOTHING" if table.primary_key.columns else ""
        self.insert = f"INSERT INTO {into} ({columns}) VALUES ({marks}){on_conflict}"  # noqa: S608  # our own table and column names
        self.copy = f"COPY {into} ({columns}) FROM STDIN"
        self.staging = f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE {into}) ON COMMIT DELETE ROWS"
        self.stage = f"COPY {staged} ({columns}) FROM STDIN"
        self.merge = f"INSERT INTO {into} ({columns}) SELECT {columns} FROM {staged}{on_conflict}"  # noqa: S608  # our own table and column names


@functools.lru_cache(64)
def _form(table: Table, dialect: str) -> InsertStatements:
    return InsertStatements(table, dialect)
