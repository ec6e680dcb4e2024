"""The boards: each as a page, as `.json` and as `.csv`, and its parts separately for open pages to fetch again.

Rows are filtered by the query of the URL and read part by part. CSV cells are escaped so that no spreadsheet runs a formula.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from sqlalchemy import ColumnElement, Connection, Select, func, select

from hub.errors import RejectedError
from hub.kit.projection import Board
from hub.web.pages import Pages

NUMBER = re.compile(r"-?\d+(\.\d+)?")
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"
"""Byte order mark: spreadsheets recognize UTF-8 only with it."""


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> str:
    """Rows under a header of column names."""
    names = list(columns)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(names)
    writer.writerows([cell(row[name]) for name in names] for row in rows)
    return BOM + out.getvalue()


def cell(value: Any) -> str:
    """One cell. A text that a spreadsheet would run as a formula gets a leading apostrophe; numbers are unchanged."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    risky = text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) and not NUMBER.fullmatch(text)
    return f"'{text}" if risky else text


Item = dict[str, Any]
"""A row with its key and the board's derived fields."""


def filters_of(board: Board, query: Mapping[str, str]) -> dict[str, str]:
    """The parameters of a query that are filters of this board."""
    return {name: query[name] for name in board.filters if query.get(name)}


def part(conn: Connection, board: Board, name: str, filters: Mapping[str, str], today: str) -> tuple[list[Item], int]:
    """The rows that a part shows, newest first, and their total number."""
    total = part_size(conn, board, name, filters)
    return list(_items(conn, board, _ordered(board, _in_part(board, name, filters)).limit(board.limit), today)), total


def part_size(conn: Connection, board: Board, name: str, filters: Mapping[str, str]) -> int:
    """The total number of rows of a part."""
    return _count(conn, board, _in_part(board, name, filters))


def every(
    conn: Connection, board: Board, filters: Mapping[str, str], today: str, limit: int | None = None, offset: int = 0
) -> list[Item]:
    """All rows that match the filters, newest first."""
    return list(_items(conn, board, _ordered(board, _where(board, filters)).limit(limit).offset(offset), today))


def count(conn: Connection, board: Board, filters: Mapping[str, str]) -> int:
    """The number of rows that match the filters."""
    return _count(conn, board, _where(board, filters))


def one(conn: Connection, board: Board, key: str, today: str) -> Item | None:
    """One row, whether the board shows it or not."""
    found = select(board.projection.table).where(board.projection.table.c.key == key)
    return next(_items(conn, board, found, today), None)


def public(board: Board, item: Item) -> dict[str, Any]:
    """The public fields of a row, for `.json`, `.csv` and the API."""
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


def router(pages: Pages) -> APIRouter:
    """The routes of the boards."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/inbox")
    def inbox(request: Request, person: str | None = None) -> Response:
        whose = person or pages.person(request)
        return RedirectResponse(f"/boards/inbox?{urlencode({'person': whose})}" if whose else "/boards/inbox")

    @routes.get("/boards/{name}")
    def page(request: Request, name: str) -> Response:
        bare, _, form = name.partition(".")
        board = _board(pages, bare)
        return _forms(pages, request, board, form) if form else _page(pages, request, board)

    @routes.get("/boards/{name}/parts/{part}")
    def part(request: Request, name: str, part: str) -> Response:
        board = _board(pages, name)
        if part not in board.parts:
            raise RejectedError("HUB-E7101", path=request.url.path)
        return pages.render(request, f"{board.name}/page.html", only=part, **_facts(pages, request, board, (part,)))

    @routes.get("/boards/{name}/as-of")
    def as_of(request: Request, name: str) -> Response:
        board = _board(pages, name)
        return pages.render(request, "as_of.html", board=board, fresh=pages.fresh(board.name))

    return routes


def _board(pages: Pages, name: str) -> Board:
    if name not in pages.boards:
        raise RejectedError("HUB-E7101", path=f"/boards/{name}"[:200])
    return pages.boards[name]


def _page(pages: Pages, request: Request, board: Board) -> Response:
    return pages.render(request, f"{board.name}/page.html", only=None, **_facts(pages, request, board, board.parts))


def _facts(pages: Pages, request: Request, board: Board, parts: tuple[str, ...]) -> dict[str, Any]:
    """The data of a template. The head is read before the rows: a page may show more than its head includes, never less."""
    filters, today = filters_of(board, request.query_params), pages.words(request).today
    with pages.store.reading() as conn:
        shown = {each: part(conn, board, each, filters, today) for each in parts}
        more = board.enrich(conn, [item for items, _ in shown.values() for item in items])
    return {
        "board": board,
        "filters": filters,
        "suffix": f"?{urlencode(filters)}" if filters else "",
        "shown": shown,
        "more": more,
        "fresh": pages.fresh(board.name),
    }


def _forms(pages: Pages, request: Request, board: Board, form: str) -> Response:
    filters, today = filters_of(board, request.query_params), pages.words(request).today
    if form not in ("json", "csv"):
        raise RejectedError("HUB-E7101", path=request.url.path[:200])
    with pages.store.reading() as conn:
        items = [public(board, item) for item in every(conn, board, filters, today)]
    if form == "json":
        return JSONResponse({"board": board.name, "as_of": pages.fresh(board.name).as_of, "items": items})
    headers = {"content-disposition": f'attachment; filename="{board.name}.csv"'}
    return Response(to_csv(items, ("ref", *board.fields)), media_type="text/csv; charset=utf-8", headers=headers)
