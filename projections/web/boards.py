"""The boards: each at one address for people, `.json` and `.csv`, and its parts alone for pages that are open."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response

from hub.errors import RejectedError
from projections.board import Board
from projections.web import rows
from projections.web.pages import Pages
from projections.web.tables import to_csv


def router(pages: Pages) -> APIRouter:
    """Their routes."""
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
        return pages.render(request, board.template, only=part, **_facts(pages, request, board, (part,)))

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
    return pages.render(request, board.template, only=None, **_facts(pages, request, board, board.parts))


def _facts(pages: Pages, request: Request, board: Board, parts: tuple[str, ...]) -> dict[str, Any]:
    """What a template shows. The head is read before the rows: an open page may show more than its head says, never less."""
    filters, today = rows.filters_of(board, request.query_params), pages.words(request).today
    with pages.store.reading() as conn:
        shown = {part: rows.part(conn, board, part, filters, today) for part in parts}
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
    filters, today = rows.filters_of(board, request.query_params), pages.words(request).today
    if form not in ("json", "csv"):
        raise RejectedError("HUB-E7101", path=request.url.path[:200])
    with pages.store.reading() as conn:
        items = [rows.public(board, item) for item in rows.every(conn, board, filters, today)]
    if form == "json":
        return JSONResponse({"board": board.name, "as_of": pages.fresh(board.name).as_of, "items": items})
    headers = {"content-disposition": f'attachment; filename="{board.name}.csv"'}
    return Response(to_csv(items, ("ref", *board.fields)), media_type="text/csv; charset=utf-8", headers=headers)
