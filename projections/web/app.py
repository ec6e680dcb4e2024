"""The web as one ASGI application."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from hub.errors import HubError, RetryableError
from hub.event_log import PlaceReader
from hub.health.rhythm import Rhythm
from hub.health.verdict import Verdict
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from projections.past import Past
from projections.registry import BOARDS
from projections.store import BoardStore
from projections.web import actions, api, boards, faults, home, state, why
from projections.web.guard import Guard
from projections.web.live import Live, fresh_event, heads_of
from projections.web.pages import Pages
from projections.web.settings import WebSettings

STATIC = Path(__file__).parent / "static"
FLOW = 5
"""Looks after which the picture of the flow is drawn again."""
LOOK = 1.0
"""Seconds between two looks at what other programs wrote, and at which boards are late."""


def make_app(
    settings: WebSettings,
    store: BoardStore,
    ledger: Ledger | None = None,
    live: Live | None = None,
    log: PlaceReader | None = None,
    verdict: Callable[[], Verdict | None] = lambda: None,
    rhythm: Rhythm | None = None,
) -> FastAPI:
    """The web of one hub. `live` is told by the runners of this program; without one, changes show within a second.

    `log` reads the events that the ledger has let go of. `verdict` says how the hub is, `rhythm` how busy.
    """
    waiting = partial(_parked, ledger) if ledger is not None else lambda: 0
    pages = Pages(
        settings, store, live or Live(BOARDS), BOARDS, parked=waiting, verdict=verdict, rhythm=rhythm or Rhythm()
    )
    past = Past(store, ledger, log)
    pages.env.globals.update(asset=assets(), infinity=float("inf"))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        pages.live.bind(asyncio.get_running_loop(), await asyncio.to_thread(heads_of, store, tuple(BOARDS)))
        looking = [asyncio.create_task(each) for each in (_look(pages), _feel(pages))]
        yield
        for each in looking:
            each.cancel()

    app = FastAPI(title=f"{settings.name} · hub", version="1", docs_url=None, redoc_url=None, lifespan=life)
    app.state.pages = pages
    for router in (
        home.router(pages, ledger),
        boards.router(pages),
        why.router(pages, past),
        actions.router(pages, ledger),
        api.router(pages, past),
        state.router(pages),
    ):
        app.include_router(router)
    _add_live(app, pages)
    app.mount("/static", _Kept(directory=STATIC))
    faults.install(app, pages)
    app.add_middleware(GZipMiddleware, minimum_size=500)

    def refuse(scope: Scope, error: HubError) -> ASGIApp:
        return faults.answer(Request(scope), error, pages)

    app.add_middleware(Guard, hosts=settings.hosts, refuse=refuse)
    return app


def _parked(ledger: Ledger) -> int:
    try:
        with ledger.reading() as conn:
            return sum(parked.count(conn).values())
    except RetryableError:
        return 0  # the ledger is away: the boards can be read all the same


def _add_live(app: FastAPI, pages: Pages) -> None:
    @app.get("/live", response_class=EventSourceResponse, include_in_schema=False)
    async def stream(request: Request, after: str = "") -> AsyncIterator[ServerSentEvent]:
        known = request.headers.get("last-event-id") or after
        async for message in pages.live.stream(known):
            yield message


async def _look(pages: Pages) -> None:
    """See what other programs wrote, and which boards became late or caught up."""
    late: dict[str, bool] = {}
    while True:
        await asyncio.sleep(LOOK)
        try:
            pages.live.seen(await asyncio.to_thread(heads_of, pages.store, tuple(pages.boards)))
            now = {name: (await asyncio.to_thread(pages.fresh, name)).late for name in pages.boards}
        except RetryableError:
            continue  # the database is away: pages grow late by themselves once it is back
        pages.live.freshness([name for name, is_late in now.items() if late.get(name, is_late) != is_late])
        late = now


async def _feel(pages: Pages) -> None:
    """See how the hub is: a change is told at once, the flow every few seconds."""
    known, told = object(), 0
    while True:
        await asyncio.sleep(LOOK)
        found, told = _mark(pages.verdict()), told + 1
        if found != known:
            pages.live.tell({"verdict", "home", *(fresh_event(name) for name in pages.boards)})
        elif told % FLOW == 0:
            pages.live.tell({"home"})
        known = found


def _mark(verdict: Verdict | None) -> object:
    """What of a verdict is news: not that time goes on."""
    if verdict is None:
        return None
    return verdict.state, verdict.parked, [(each.kind, each.state, each.where) for each in verdict.troubles]


def assets() -> Mapping[str, str]:
    """Path below static/ → its address, which changes with its content."""
    return {
        file.relative_to(STATIC).as_posix(): f"/static/{file.relative_to(STATIC).as_posix()}?v={_hash(file)}"
        for file in STATIC.rglob("*")
        if file.is_file()
    }


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


class _Kept(StaticFiles):
    """Files that a browser may keep for good."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
