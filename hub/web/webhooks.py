"""The hub's only open port: it receives webhook pushes here and forwards every other request to the boards.

A push is read under caps (size, time, header size), verified over its raw bytes, and answered with 202 once it is durable.
Refusals are RFC 9457 problems in the reader's language, with the same short bytes for the same code and language: enough for an
honest sender to correct the request, and no help for a forger.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
import structlog
from aiohttp import web

from hub.errors import FatalError, RejectedError, RetryableError, text_of
from hub.intake.intake import Intake, QuotaError, delivery_ref, storable_headers
from hub.intake.readers import Readers, UnavailableError
from hub.kit.connector import Delivery, WebhookReplies, WebhookSource
from hub.ledger.refused import Refusal
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.web.bodies import Bodies
from hub.web.connections import SERVER, BoundedServer
from hub.web.refusals import ELSEWHERE, Refusals, StoredRefusalError

STATUS = {
    "HUB-E7002": 404,
    "HUB-E7003": 405,
    "HUB-E7004": 415,
    "HUB-E7005": 413,
    "HUB-E7006": 503,
    "HUB-E7007": 408,
    "HUB-E7008": 401,
    "HUB-E7009": 400,
    "HUB-E7011": 421,
    "HUB-E7012": 503,
    "HUB-E7013": 500,
    "HUB-E7014": 503,
    "HUB-E7015": 417,
}
HEADERS_BY_STATUS = {405: {"Allow": "POST"}, 503: {"Retry-After": "2"}}
"""Additional response headers by status."""
HEADERS_BY_CODE = {"HUB-E7014": {"Retry-After": "60"}}
"""Additional response headers by code: a person has to act before a retry helps."""


def problem(request: web.BaseRequest, code: str) -> web.Response:
    """The problem response for a code."""
    status = STATUS[code]
    answer = web.Response(
        status=status,
        body=_body(code, language_of(request)),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **HEADERS_BY_STATUS.get(status, {}), **HEADERS_BY_CODE.get(code, {})},
    )
    if status in (408, 413):
        answer.force_close()  # do not wait for the rest of the body
    return answer


def language_of(request: web.BaseRequest) -> str:
    """`zh-CN` unless the reader puts English first."""
    first = request.headers.get("Accept-Language", "").split(",")[0].strip().lower()
    return "en" if first.startswith("en") else "zh-CN"


@functools.cache
def _body(code: str, language: str) -> bytes:
    text = text_of(code, language)
    document = {
        "type": f"urn:hub:problem:{code}",
        "title": text["say"],
        "status": STATUS[code],
        "detail": text["fix"],
        "code": code,
    }
    return orjson.dumps(document)


HEAD_TIMEOUT_S = 10.0
"""Seconds within which a request head must be complete; also the keep-alive timeout of an idle connection."""
ACCEPT_BACKLOG = 128
"""Connections that the event loop accepts in one turn, and reports when it cannot accept."""
LISTEN_BACKLOG = 1024
"""Connections that may wait in the kernel to be accepted, also while the program restarts."""
DRAIN_S = 0.3
"""Seconds for which requests on open connections are still answered when the program stops."""
COMMIT_TIMEOUT_S = 10.0
"""Seconds within which a push must be durable; after that the sender gets a 503 and retries; intake is idempotent."""
WEBHOOK_PREFIX = "/webhooks/"
T = TypeVar("T")

log = structlog.get_logger(__name__)
_http_log = logging.getLogger("hub.web.webhooks.http")
_http_log.setLevel(
    logging.CRITICAL + 1
)  # silent: it quotes bytes of unauthenticated senders; failures on our side are logged in `_answer`
FallbackHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers every request that is not a push."""


@dataclass(frozen=True)
class ListenAddress:
    """Where the web server listens. Only on loopback, until people can sign in."""

    host: str = "127.0.0.1"
    port: int = 8600
    listening: int | None = None
    """File descriptor of an inherited listening socket: its pending connections survive a restart of this program."""

    def checked(self) -> ListenAddress:
        """The address itself; raises FatalError for one that is not loopback."""
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            raise FatalError("HUB-E7001", host=self.host)
        return self


class Committed:
    """Waits for commits of the ledger's writer thread, with one wake-up of the event loop per group commit.

    A wake-up per push would cost more than the push itself: the two threads would switch for each one.
    """

    def __init__(self) -> None:
        self._done: deque[asyncio.Future[None]] = deque()

    async def wait(self, future: Future[Any]) -> None:
        """Return once the future is done."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        future.add_done_callback(lambda _: self._notify(loop, waiting))
        await waiting

    def _notify(self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[None]) -> None:
        self._done.append(waiting)
        if len(self._done) == 1:
            loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        while self._done:
            waiting = self._done[0]
            if not waiting.done():
                waiting.set_result(None)
            self._done.popleft()


class Pushes:
    """Receives pushes. For the event loop's thread."""

    def __init__(
        self, intake: Intake, receivers: Mapping[str, WebhookSource], bodies: Bodies, clock: Clock, refusals: Refusals
    ) -> None:
        self._intake, self._receivers, self._bodies, self._clock = intake, receivers, bodies, clock
        self._refusals, self._readers = refusals, Readers()
        self._committed = Committed()
        self.closed = False

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request to `/webhooks/{instance}`; raises RejectedError for one that is refused."""
        instance = request.path[len(WEBHOOK_PREFIX) :]
        receiver = self._receivers.get(instance)
        with self._refusals.counting(ELSEWHERE if receiver is None else instance):
            if receiver is None:
                raise RejectedError("HUB-E7002")
            if request.method != "POST":
                raise RejectedError("HUB-E7003")
            if self.closed:
                raise UnavailableError("HUB-E7006")
            async with self._bodies.read(request) as body:
                delivery = Delivery(_headers(request), body, self._clock.now())
                _verify(receiver, delivery)
                return await self._accept(instance, receiver, delivery)

    def close(self) -> None:
        """Stop reading further pushes."""
        self._readers.close()

    async def _accept(self, instance: str, receiver: WebhookSource, delivery: Delivery) -> web.Response:
        try:
            push = functools.partial(self._intake.push, instance, receiver, delivery)
            accepted = await self._durable(await self._readers.run(instance, delivery.body, push))
        except QuotaError as error:
            self._refusals.count_signed(instance, error.code)
            raise
        except RejectedError as error:
            await self._record_refusal(instance, receiver, delivery, error)
            raise StoredRefusalError("HUB-E7009") from error
        failpoint("intake.committed")
        if isinstance(receiver, WebhookReplies):
            reply = await self._readers.run(instance, delivery.body, functools.partial(receiver.reply, delivery))
            if reply is not None:
                return web.Response(status=200, body=reply, content_type="application/json")
        receipt = {"id": accepted.id, "events": accepted.events}
        return web.Response(status=202, body=orjson.dumps(receipt), content_type="application/json")

    async def _record_refusal(
        self, instance: str, receiver: WebhookSource, delivery: Delivery, error: RejectedError
    ) -> None:
        """Store a signed push that is refused, before answering; while the ledger is unavailable the sender gets a 503."""
        refusal = Refusal(
            instance,
            delivery_ref(instance, receiver, delivery),
            receiver.id_of(delivery),
            error.code,
            error.seen,
            storable_headers(delivery.headers),
            delivery.body,
            delivery.received,
        )
        await self._durable(self._refusals.keep(refusal))

    async def _durable(self, future: Future[T]) -> T:
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await self._committed.wait(future)
            return future.result()
        except (RetryableError, TimeoutError) as error:
            raise UnavailableError("HUB-E7006") from error


def _verify(receiver: WebhookSource, delivery: Delivery) -> None:
    try:
        receiver.verify(delivery)
    except RejectedError as error:
        raise RejectedError("HUB-E7008") from error


class WebServer:
    """The hub's web server, in the connectors program."""

    def __init__(
        self, address: ListenAddress, pushes: Pushes, fallback: FallbackHandler, limit: int | None = None
    ) -> None:
        """`limit`: maximum number of open connections; None: as the limit of open files allows."""
        self._address, self._pushes, self._fallback, self._limit = address.checked(), pushes, fallback, limit
        self._runner: web.ServerRunner | None = None

    async def open(self) -> int:
        """Listen, and return the port. Raises FatalError when the port is in use."""
        # `keepalive_timeout` closes idle connections and those whose request head does not complete.
        self._server = BoundedServer(
            self._dispatch,
            limit=self._limit,
            access_log=None,
            logger=_http_log,
            auto_decompress=False,
            keepalive_timeout=HEAD_TIMEOUT_S,
            lingering_time=2.0,
            max_line_size=8190,
            max_field_size=8190,
        )
        self._runner = web.ServerRunner(self._server, shutdown_timeout=5.0)
        await self._runner.setup()
        listening = _listen(self._address)
        await web.SockSite(self._runner, listening, backlog=ACCEPT_BACKLOG).start()
        listening.listen(LISTEN_BACKLOG)
        return int(listening.getsockname()[1])

    async def drain(self) -> None:
        """Accept no more connections and no more pushes; pushes on open connections are answered with a request to retry."""
        self._pushes.closed = True
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            await asyncio.sleep(DRAIN_S)

    async def close(self) -> None:
        """Stop accepting, answer the requests in progress, and close."""
        self._pushes.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._server.answering(request):
            answer = await self._answer(request)
            if not answer.prepared:
                answer.headers["Server"] = SERVER
            return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.path.startswith(WEBHOOK_PREFIX):
                return self._closing_if_drained(await self._pushes.answer(request))
            return await self._fallback(request)
        except (RejectedError, UnavailableError) as refused:
            return self._closing_if_drained(problem(request, refused.code))
        except ConnectionError:
            raise  # the client has disconnected
        except Exception as error:
            log.exception("door.failed", path=request.path[:100], error=type(error).__name__)
            return problem(request, "HUB-E7013")

    def _closing_if_drained(self, answer: web.Response) -> web.Response:
        """The response; it closes its connection once the server is draining."""
        if self._pushes.closed:
            answer.force_close()
        return answer


def _listen(address: ListenAddress) -> socket.socket:
    if address.listening is not None:
        given = socket.socket(fileno=address.listening)
        given.setblocking(False)
        return given
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        raise FatalError("HUB-E7010", host=address.host, port=address.port, reason=error.strerror) from error
    listening.setblocking(False)
    return listening


def _headers(request: web.BaseRequest) -> dict[str, str]:
    """Header values by lower-case name. A repeated header holds both values, so that neither passes as the only one.

    Bytes that are not UTF-8 are escaped (`\\xcd\\xf5`): headers may be stored and shown, and must be valid text everywhere.
    """
    headers = dict[str, str]()
    for name, raw in request.headers.items():
        lower = name.lower()
        value = raw if raw.isascii() else raw.encode(errors="surrogateescape").decode(errors="backslashreplace")
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers
