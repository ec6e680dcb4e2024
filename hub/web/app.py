"""The web as one ASGI application: routes, live stream, static files, and the guard.

The guard checks each request's host and the origin of state-changing requests, and adds security headers to every response.
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
from hub.health.status import HealthStatus
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from hub.log.event_log import OffsetReader
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
    """Refuses foreign hosts and foreign origins, and adds the security headers to every response.

    A foreign page can make a browser call us, but cannot forge its Origin; and through a DNS name of its own that resolves to
    127.0.0.1 (DNS rebinding) the Host differs. A request with neither Origin nor Sec-Fetch-Site is not from a form of our pages.
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
FLOW_REFRESH_POLLS = 5
"""Polls after which the picture of the flow is redrawn."""
POLL_INTERVAL_S = 1.0
"""Seconds between polls of what other programs wrote, of which boards are late, and of the health status."""


def make_app(
    settings: WebSettings,
    store: BoardStore,
    ledger: Ledger | None = None,
    live: Live | None = None,
    log: OffsetReader | None = None,
    health: Callable[[], HealthStatus | None] = lambda: None,
    rhythm: Rhythm | None = None,
) -> FastAPI:
    """The web of one hub. The runners of this program report commits to `live`; without it, changes show within a second.

    `log` reads events that the ledger has trimmed. `health` gives the hub's status, `rhythm` its throughput.
    """
    parked_count = partial(_parked, ledger) if ledger is not None else lambda: 0
    pages = Pages(
        settings,
        store,
        live or Live(registry.boards()),
        registry.boards(),
        parked=parked_count,
        health=health,
        rhythm=rhythm or Rhythm(),
    )
    past = Past(store, ledger, log)
    pages.env.globals.update(asset=assets(), infinity=float("inf"))

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        pages.live.bind(asyncio.get_running_loop(), await asyncio.to_thread(heads_of, store, tuple(registry.boards())))
        tasks = [asyncio.create_task(each) for each in (_watch_boards(pages), _watch_health(pages))]
        yield
        for each in tasks:
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
    app.mount("/static", _ImmutableFiles(directory=STATIC))
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
        return 0  # the ledger is unavailable: boards stay readable


def _add_live(app: FastAPI, pages: Pages) -> None:
    @app.get("/live", response_class=EventSourceResponse, include_in_schema=False)
    async def stream(request: Request, after: str = "") -> AsyncIterator[ServerSentEvent]:
        known = request.headers.get("last-event-id") or after
        async for message in pages.live.stream(known):
            yield message


async def _watch_boards(pages: Pages) -> None:
    """Announce boards that other programs wrote, and boards that became late or caught up."""
    late: dict[str, bool] = {}
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        try:
            pages.live.update_heads(await asyncio.to_thread(heads_of, pages.store, tuple(pages.boards)))
            now = {name: (await asyncio.to_thread(pages.fresh, name)).late for name in pages.boards}
        except RetryableError:
            continue  # the database is unavailable: lateness is announced once it is back
        pages.live.announce_freshness([name for name, is_late in now.items() if late.get(name, is_late) != is_late])
        late = now


async def _watch_health(pages: Pages) -> None:
    """Announce a change of the health status at once, and the flow every few seconds."""
    known, polls = object(), 0
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        summary, polls = _summary(pages.health()), polls + 1
        if summary != known:
            pages.live.announce_stale({"verdict", "home", *(fresh_event(name) for name in pages.boards)})
        elif polls % FLOW_REFRESH_POLLS == 0:
            pages.live.announce_stale({"home"})
        known = summary


def _summary(status: HealthStatus | None) -> object:
    """The parts of a status whose change is announced: not its ages, which always change."""
    if status is None:
        return None
    return status.state, status.parked, [(each.kind, each.state, each.where) for each in status.troubles]


def assets() -> Mapping[str, str]:
    """Path below static/ → its URL, which changes with the content."""
    return {
        file.relative_to(STATIC).as_posix(): f"/static/{file.relative_to(STATIC).as_posix()}?v={_hash(file)}"
        for file in STATIC.rglob("*")
        if file.is_file()
    }


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


class _ImmutableFiles(StaticFiles):
    """Static files that a browser may cache permanently."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "public, max-age=31536000, immutable"
        return response
