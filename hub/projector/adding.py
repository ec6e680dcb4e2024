"""Rows on their way into a table that only grows, in the caller's transaction: by the driver's own fast paths, as in `rows`."""

from __future__ import annotations

import functools
from hashlib import blake2b
from typing import Any

from sqlalchemy import Connection, Row, Table, select

from hub.kit.projection import Rows
from hub.projector.rows import FEW, PAGE, copy_rows


def add_rows(conn: Connection, table: Table, rows: Rows) -> None:
    """Add rows; in a table with a primary key a row that is there already stays as it is."""
    if not rows:
        return
    form = _form(table, conn.dialect.name)
    if conn.dialect.name != "postgresql" or len(rows) <= FEW:
        conn.exec_driver_sql(form.insert, list(rows))
    elif not table.primary_key.columns:
        copy_rows(conn, form.copy, rows)
    else:
        conn.exec_driver_sql(form.staging)
        copy_rows(conn, form.stage, rows)
        conn.exec_driver_sql(form.merge)


def block_hashes(conn: Connection, table: Table) -> tuple[dict[str, bytes], int]:
    """The hash of each block of rows, and how many rows there are.

    A hash is the sum of its rows', whatever their order; a block is named by its table and by what its rows have in common.
    """
    sums: dict[str, int] = {}
    count, block_of = 0, _places if "offset" in table.c else _words
    for row in conn.execution_options(yield_per=PAGE).execute(select(table)):
        count += 1
        block = block_of(row)
        told = repr(tuple(row)).encode(errors="surrogatepass")
        sums[block] = sums.get(block, 0) + int.from_bytes(blake2b(told, digest_size=16).digest())
    name = table.name.removesuffix("__shadow")
    return {f"{name} {block}": (total % _WIDE).to_bytes(16) for block, total in sums.items()}, count


_WIDE = 1 << 128


def _places(row: Row[Any]) -> str:
    """A thousand offsets of a partition."""
    start = row.offset - row.offset % 1000
    return f"{row.partition}:{start}–{start + 999}"


def _words(row: Row[Any]) -> str:
    """Keys that are near."""
    return f"{row[0] & 0xFFF:03x}"


class InsertStatements:
    """The statements for one table in one dialect."""

    def __init__(self, table: Table, dialect: str) -> None:
        into, staged = f'"{table.name}"', f'"{table.name}__new"'
        told = ", ".join(f'"{column.name}"' for column in table.columns)
        marks = ", ".join(["%s" if dialect == "postgresql" else "?"] * len(table.columns))
        stays = " ON CONFLICT DO NOTHING" if table.primary_key.columns else ""
        self.insert = f"INSERT INTO {into} ({told}) VALUES ({marks}){stays}"  # noqa: S608  # names of ours
        self.copy = f"COPY {into} ({told}) FROM STDIN"
        self.staging = f"CREATE TEMPORARY TABLE IF NOT EXISTS {staged} (LIKE {into}) ON COMMIT DELETE ROWS"
        self.stage = f"COPY {staged} ({told}) FROM STDIN"
        self.merge = f"INSERT INTO {into} ({told}) SELECT {told} FROM {staged}{stays}"  # noqa: S608  # names of ours


@functools.lru_cache(64)
def _form(table: Table, dialect: str) -> InsertStatements:
    return InsertStatements(table, dialect)
