"""The web as one ASGI application.

What every answer carries and every request must pass: the host, the origin of what changes something, strict headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.errors import HubError, RejectedError, RetryableError
from hub.health.rhythm import Rhythm
from hub.health.verdict import HealthStatus
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from hub.log.event_log import PlaceReader
from hub.projector import registry
from hub.projector.store import BoardStore
from hub.web import actions, api, boards, faults, home, state, why
from hub.web.live import Live, fresh_event, heads_of
from hub.web.pages import Pages
from hub.web.past import Past
from hub.web.settings import WebSettings

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)
Refuse = Callable[[Scope, RejectedError], ASGIApp]
SAFE = frozenset({"GET", "HEAD"})


class Guard:
    """Refuses foreign hosts and foreign origins, and puts the headers on every answer.

    A page elsewhere can make a browser call us, but cannot make it say another Origin; and by a name of its own that it points
    at 127.0.0.1 it would say another Host. Who sends neither Origin nor Sec-Fetch-Site is no browser with a form of ours.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...], refuse: Refuse) -> None:
        self.app, self.hosts, self.refuse = app, frozenset(host.lower() for host in hosts), refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        error = self._check(scope["method"], scope["scheme"], Headers(scope=scope))
        await (self.app if error is None else self.refuse(scope, error))(scope, receive, with_headers)

    def _check(self, method: str, scheme: str, headers: Headers) -> RejectedError | None:
        host = headers.get("host", "")
        if not _is_ours(host, self.hosts):
            return RejectedError("HUB-E7103", host=host[:100])
        if method in SAFE:
            return None
        origin = headers.get("origin")
        own = (
            origin.lower() == f"{scheme}://{host}".lower() if origin else headers.get("sec-fetch-site") == "same-origin"
        )
        return None if own else RejectedError("HUB-E7104", origin=(origin or "")[:100])


def _is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header is one of the names, with or without a port."""
    found = HOST.fullmatch(host.lower())
    return found is not None and found["name"] in names


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
    verdict: Callable[[], HealthStatus | None] = lambda: None,
    rhythm: Rhythm | None = None,
) -> FastAPI:
    """The web of one hub. `live` is told by the runners of this program; without one, changes show within a second.

    `log` reads the events that the ledger has let go of. `verdict` says how the hub is, `rhythm` how busy.
    """
    waiting = partial(_parked, ledger) if ledger is not None else lambda: 0
    pages = Pages(
        settings,
        store,
        live or Live(registry.boards()),
        registry.boards(),
        parked=waiting,
        verdict=verdict,
        rhythm=rhythm or Rhythm(),
    )
    past = Past(store, ledger, log)
    pages.env.globals.update(asset=assets(), infinity=float("inf"))

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        pages.live.bind(asyncio.get_running_loop(), await asyncio.to_thread(heads_of, store, tuple(registry.boards())))
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


def _mark(verdict: HealthStatus | None) -> object:
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
