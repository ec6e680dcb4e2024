"""Reading a board's rows for one page: filtered as its address says, part by part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from projections.board import Board

Item = dict[str, Any]
"""A row with its key, and what the board derives of it."""


def filters_of(board: Board, query: Mapping[str, str]) -> dict[str, str]:
    """What of an address is a filter of this board."""
    return {name: query[name] for name in board.filters if query.get(name)}


def part(conn: Connection, board: Board, name: str, filters: Mapping[str, str], today: str) -> tuple[list[Item], int]:
    """The rows that a part shows, newest first, and how many there are in all."""
    total = part_size(conn, board, name, filters)
    return list(_items(conn, board, _ordered(board, _in_part(board, name, filters)).limit(board.limit), today)), total


def part_size(conn: Connection, board: Board, name: str, filters: Mapping[str, str]) -> int:
    """How many rows a part has in all."""
    return _count(conn, board, _in_part(board, name, filters))


def every(
    conn: Connection, board: Board, filters: Mapping[str, str], today: str, limit: int | None = None, offset: int = 0
) -> list[Item]:
    """All rows that the filters leave, newest first."""
    return list(_items(conn, board, _ordered(board, _where(board, filters)).limit(limit).offset(offset), today))


def count(conn: Connection, board: Board, filters: Mapping[str, str]) -> int:
    """How many rows the filters leave."""
    return _count(conn, board, _where(board, filters))


def one(conn: Connection, board: Board, key: str, today: str) -> Item | None:
    """One row, shown on the board or not."""
    found = select(board.projection.table).where(board.projection.table.c.key == key)
    return next(_items(conn, board, found, today), None)


def public(board: Board, item: Item) -> dict[str, Any]:
    """What `.json`, `.csv` and the API give away of a row."""
    return {"ref": item["key"], **{name: item[name] for name in board.fields}}


def _where(board: Board, filters: Mapping[str, str]) -> list[ColumnElement[bool]]:
    columns = board.projection.table.c
    return [board.shown, *(columns[name] == value for name, value in filters.items())]


def _in_part(board: Board, name: str, filters: Mapping[str, str]) -> list[ColumnElement[bool]]:
    chosen = _where(board, filters)
    return chosen if board.part is None else [*chosen, board.part == name]


def _count(conn: Connection, board: Board, where: Sequence[ColumnElement[bool]]) -> int:
    total: int = conn.execute(select(func.count()).select_from(board.projection.table).where(*where)).scalar_one()
    return total


def _ordered(board: Board, where: Sequence[ColumnElement[bool]]) -> Select[Any]:
    table = board.projection.table
    return select(table).where(*where).order_by(*board.newest, table.c.key)


def _items(conn: Connection, board: Board, query: Select[Any], today: str) -> Iterator[Item]:
    for row in conn.execute(query).mappings():
        mark = hashlib.sha256(row["key"].encode()).hexdigest()[:12]
        values = dict(row)
        yield {**values, "id": f"card-{mark}", **board.derive(row["key"], values, today)}
