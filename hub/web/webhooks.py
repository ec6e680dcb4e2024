"""The hub's only open port: pushes are taken in here, everything else is passed on to the boards.

A push is read under caps (size, time, header size), verified over its raw bytes, and answered with 202 once it is durable.
Answers to strangers are constant and short: they say what to mend to an honest sender and help no forger.

What the front door says when it refuses: RFC 9457 problems, in the reader's language, the same bytes every time.
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
from hub.intake.intake import Intake, QuotaError, delivery_ref, public
from hub.intake.readers import Readers, UnavailableError
from hub.kit.connector import Delivery, WebhookReplies, WebhookSource
from hub.ledger.refused import Refusal
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.web.bodies import Bodies
from hub.web.connections import SERVER, Reception
from hub.web.refusals import ELSEWHERE, KeptRefusalError, Refusals

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
MORE = {405: {"Allow": "POST"}, 503: {"Retry-After": "2"}}
"""Headers of an answer besides, by status."""
LATER = {"HUB-E7014": {"Retry-After": "60"}}
"""Those of some codes: a person has to do something first."""


def problem(request: web.BaseRequest, code: str) -> web.Response:
    """The refusal of a request, by code."""
    status = STATUS[code]
    answer = web.Response(
        status=status,
        body=_body(code, language_of(request)),
        content_type="application/problem+json",
        headers={"Cache-Control": "no-store", **MORE.get(status, {}), **LATER.get(code, {})},
    )
    if status in (408, 413):
        answer.force_close()  # the rest of the body is not waited for
    return answer


def language_of(request: web.BaseRequest) -> str:
    """`zh-CN` unless the reader puts English first."""
    first = request.headers.get("Accept-Language", "").split(",")[0].strip().lower()
    return "en" if first.startswith("en") else "zh-CN"


@functools.cache
def _body(code: str, language: str) -> bytes:
    text = text_of(code, language)
    told = {
        "type": f"urn:hub:problem:{code}",
        "title": text["say"],
        "status": STATUS[code],
        "detail": text["fix"],
        "code": code,
    }
    return orjson.dumps(told)


HEAD_SECONDS = 10.0
"""Until the head of a request must have come in full; an idle connection is kept for as long."""
ACCEPTED = 128
"""Connections that the accept loop takes at a time, and tells of when it cannot."""
WAITING = 1024
"""Connections that may wait to be accepted, also while the program behind the door restarts."""
LAST_WORDS = 0.3
"""Seconds in which requests on open connections are still answered when the program stops."""
COMMIT_SECONDS = 10.0
"""Until a push is durable; after that its sender is told to come again, and a repeat adds nothing."""
PUSHES = "/webhooks/"
T = TypeVar("T")

log = structlog.get_logger(__name__)
_unheard = logging.getLogger("hub.web.webhooks.http")
_unheard.setLevel(
    logging.CRITICAL + 1
)  # it quotes what strangers send; what fails on our side is logged in `_dispatch`
Rest = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers whatever is no push."""


@dataclass(frozen=True)
class ListenAddress:
    """Where the front door listens. Only this machine may reach it until people can sign in."""

    host: str = "127.0.0.1"
    port: int = 8600
    listening: int | None = None
    """An open socket that the program was given: the connections in it wait for the next program when this one goes."""

    def checked(self) -> ListenAddress:
        """The address itself; raises FatalError for one that others could reach."""
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            raise FatalError("HUB-E7001", host=self.host)
        return self


class Committed:
    """Waits for the ledger's writing thread, which is heard once for all that it has committed together.

    A wake-up of the event loop for each push would cost more than the push: both threads would take turns at every one.
    """

    def __init__(self) -> None:
        self._done: deque[asyncio.Future[None]] = deque()

    async def wait(self, future: Future[Any]) -> None:
        """Return once the future has an answer."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_future()
        future.add_done_callback(lambda _: self._tell(loop, waiting))
        await waiting

    def _tell(self, loop: asyncio.AbstractEventLoop, waiting: asyncio.Future[None]) -> None:
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
    """Takes pushes in. For the event loop's thread."""

    def __init__(
        self, intake: Intake, receivers: Mapping[str, WebhookSource], bodies: Bodies, clock: Clock, refusals: Refusals
    ) -> None:
        self._intake, self._receivers, self._bodies, self._clock = intake, receivers, bodies, clock
        self._refusals, self._readers = refusals, Readers()
        self._committed = Committed()
        self.closed = False

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request to `/webhooks/{instance}`; raises RejectedError for one that is not taken in."""
        instance = request.path[len(PUSHES) :]
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
                return await self._take_in(instance, receiver, delivery)

    def close(self) -> None:
        """Begin to read nothing more."""
        self._readers.close()

    async def _take_in(self, instance: str, receiver: WebhookSource, delivery: Delivery) -> web.Response:
        try:
            push = functools.partial(self._intake.push, instance, receiver, delivery)
            accepted = await self._durable(await self._readers.run(instance, delivery.body, push))
        except QuotaError as error:
            self._refusals.count_signed(instance, error.code)
            raise
        except RejectedError as error:
            await self._keep(instance, receiver, delivery, error)
            raise KeptRefusalError("HUB-E7009") from error
        failpoint("intake.committed")
        if isinstance(receiver, WebhookReplies):
            reply = await self._readers.run(instance, delivery.body, functools.partial(receiver.reply, delivery))
            if reply is not None:
                return web.Response(status=200, body=reply, content_type="application/json")
        told = {"id": accepted.id, "events": accepted.events}
        return web.Response(status=202, body=orjson.dumps(told), content_type="application/json")

    async def _keep(self, instance: str, receiver: WebhookSource, delivery: Delivery, error: RejectedError) -> None:
        """Keep a signed push that is refused before its sender hears of it; while the ledger is away it is to come again."""
        refusal = Refusal(
            instance,
            delivery_ref(instance, receiver, delivery),
            receiver.id_of(delivery),
            error.code,
            error.seen,
            public(delivery.headers),
            delivery.body,
            delivery.received,
        )
        await self._durable(self._refusals.keep(refusal))

    async def _durable(self, future: Future[T]) -> T:
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._committed.wait(future)
            return future.result()
        except (RetryableError, TimeoutError) as error:
            raise UnavailableError("HUB-E7006") from error


def _verify(receiver: WebhookSource, delivery: Delivery) -> None:
    try:
        receiver.verify(delivery)
    except RejectedError as error:
        raise RejectedError("HUB-E7008") from error


class FrontDoor:
    """The web server of this program."""

    def __init__(self, address: ListenAddress, pushes: Pushes, rest: Rest, most: int | None = None) -> None:
        """`most` connections at once; None for what the limit of open files allows."""
        self._address, self._pushes, self._rest, self._most = address.checked(), pushes, rest, most
        self._runner: web.ServerRunner | None = None

    async def open(self) -> int:
        """Listen, and return the port. Raises FatalError when it is taken."""
        # An idle connection, and one whose request head does not come to its end, is closed after `keepalive_timeout`.
        self._reception = Reception(
            self._dispatch,
            most=self._most,
            access_log=None,
            logger=_unheard,
            auto_decompress=False,
            keepalive_timeout=HEAD_SECONDS,
            lingering_time=2.0,
            max_line_size=8190,
            max_field_size=8190,
        )
        self._runner = web.ServerRunner(self._reception, shutdown_timeout=5.0)
        await self._runner.setup()
        listening = _listen(self._address)
        await web.SockSite(self._runner, listening, backlog=ACCEPTED).start()
        listening.listen(WAITING)
        return int(listening.getsockname()[1])

    async def turn_away(self) -> None:
        """Accept no more connections, and take in nothing more; who is connected already is told to come again."""
        self._pushes.closed = True
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            await asyncio.sleep(LAST_WORDS)

    async def close(self) -> None:
        """Take no more, answer what is under way, and let go."""
        self._pushes.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        with self._reception.answering(request):
            answer = await self._answer(request)
            if not answer.prepared:
                answer.headers["Server"] = SERVER
            return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.path.startswith(PUSHES):
                return self._last(await self._pushes.answer(request))
            return await self._rest(request)
        except (RejectedError, UnavailableError) as refused:
            return self._last(problem(request, refused.code))
        except ConnectionError:
            raise  # the reader has gone
        except Exception as error:
            log.exception("door.failed", path=request.path[:100], error=type(error).__name__)
            return problem(request, "HUB-E7013")

    def _last(self, answer: web.Response) -> web.Response:
        """An answer, and the last on its connection once the door is closing."""
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
    """Header names in lower case. One that came twice holds both values, so that neither passes for the only one.

    Bytes that are no UTF-8 are written out (`\\xcd\\xf5`): a header may be kept and shown, and text must be text everywhere.
    """
    read = dict[str, str]()
    for name, sent in request.headers.items():
        lower = name.lower()
        value = sent if sent.isascii() else sent.encode(errors="surrogateescape").decode(errors="backslashreplace")
        read[lower] = f"{read[lower]}, {value}" if lower in read else value
    return read
