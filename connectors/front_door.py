"""The hub's only open port: pushes are taken in here, everything else is passed on to the boards.

A push is read under caps (size, time, header size), verified over its raw bytes, and answered with 202 once it is durable.
Answers to strangers are constant and short: they say what to mend to an honest sender and help no forger.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import web

from connectors import answers
from connectors.intake import Accepted, Intake
from hub.clock import Clock
from hub.connector import Delivery, Receives
from hub.errors import FatalError, RejectedError, RetryableError
from hub.failpoints import reach

MAX_BODY = 1024 * 1024
"""Bytes of a push."""
READ_SECONDS = 10.0
"""Until the head, and then the body, of a request must have come in full."""
COMMIT_SECONDS = 10.0
"""Until a push is durable; after that its sender is told to come again, and a repeat adds nothing."""
MAX_WAITING = 64 * MAX_BODY
"""Bytes of pushes that are under way at once; more are told to come again."""
PUSHES = "/webhooks/"

log = structlog.get_logger(__name__)
_unheard = logging.getLogger("connectors.front_door.http")
_unheard.setLevel(
    logging.CRITICAL + 1
)  # it quotes what strangers send; what fails on our side is logged in `_dispatch`
Rest = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers whatever is no push."""


@dataclass(frozen=True)
class Address:
    """Where the front door listens. Only this machine may reach it until people can sign in."""

    host: str = "127.0.0.1"
    port: int = 8600

    def checked(self) -> Address:
        """The address itself; raises FatalError for one that others could reach."""
        if self.host not in ("127.0.0.1", "::1", "localhost"):
            raise FatalError("HUB-E7001", host=self.host)
        return self


class Pushes:
    """Takes pushes in. For the event loop's thread."""

    def __init__(self, intake: Intake, receivers: Mapping[str, Receives], clock: Clock) -> None:
        self._intake, self._receivers, self._clock = intake, receivers, clock
        self._bytes = 0
        self._under_way = 0
        self.closed = False

    @property
    def under_way(self) -> int:
        """Pushes that have not been answered yet."""
        return self._under_way

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer a request to `/webhooks/{instance}`."""
        self._under_way += 1
        try:
            return await self._answer(request)
        finally:
            self._under_way -= 1

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        instance = request.path[len(PUSHES) :]
        receiver = self._receivers.get(instance)
        if receiver is None:
            return answers.problem(request, "HUB-E7002")
        if request.method != "POST":
            return answers.problem(request, "HUB-E7003", {"Allow": "POST"})
        if request.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            return answers.problem(request, "HUB-E7004")
        if (request.content_length or 0) > MAX_BODY:
            return answers.problem(request, "HUB-E7005")
        if self.closed or self._bytes + (request.content_length or MAX_BODY) > MAX_WAITING:
            return answers.problem(request, "HUB-E7006")
        return await self._read(request, instance, receiver)

    async def _read(self, request: web.BaseRequest, instance: str, receiver: Receives) -> web.Response:
        body = bytearray()
        counted = request.content_length or MAX_BODY
        self._bytes += counted
        try:
            async with asyncio.timeout(READ_SECONDS):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > MAX_BODY:
                        return answers.problem(request, "HUB-E7005")
            return await self._take_in(request, instance, receiver, bytes(body))
        except TimeoutError:
            return answers.problem(request, "HUB-E7007")
        finally:
            self._bytes -= counted

    async def _take_in(self, request: web.BaseRequest, instance: str, receiver: Receives, body: bytes) -> web.Response:
        delivery = Delivery(_headers(request), body, self._clock.now())
        try:
            receiver.verify(delivery)
        except RejectedError as error:
            log.info("push.refused", instance=instance, code=error.code)
            return answers.problem(request, "HUB-E7008")
        try:
            future = self._intake.push(instance, receiver, delivery)
        except RejectedError as error:
            log.info("push.refused", instance=instance, code=error.code)
            return answers.problem(request, "HUB-E7009")
        return await self._durable(request, future)

    async def _durable(self, request: web.BaseRequest, future: Future[Accepted]) -> web.Response:
        waiting = asyncio.wrap_future(future)
        done, _ = await asyncio.wait([waiting], timeout=COMMIT_SECONDS)
        if not done:
            waiting.add_done_callback(lambda late: late.cancelled() or late.exception())
            return answers.problem(request, "HUB-E7006")
        try:
            accepted = waiting.result()
        except RetryableError:
            return answers.problem(request, "HUB-E7006")
        reach("intake.committed")
        told = {"id": accepted.id, "events": accepted.events}
        return web.Response(status=202, body=orjson.dumps(told), content_type="application/json")


class FrontDoor:
    """The web server of this program."""

    def __init__(self, address: Address, pushes: Pushes, rest: Rest) -> None:
        self._address, self._pushes, self._rest = address.checked(), pushes, rest
        self._runner: web.ServerRunner | None = None

    async def open(self) -> int:
        """Listen, and return the port. Raises FatalError when it is taken."""
        # An idle connection, and one whose request head does not come to its end, is closed after `keepalive_timeout`.
        server = web.Server(
            self._dispatch,
            access_log=None,
            logger=_unheard,
            auto_decompress=False,
            handler_cancellation=True,
            keepalive_timeout=READ_SECONDS,
            lingering_time=2.0,
            max_line_size=8190,
            max_field_size=8190,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=5.0)
        await self._runner.setup()
        listening = _listen(self._address)
        await web.SockSite(self._runner, listening, backlog=1024).start()
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Take no more, answer what is under way, and let go."""
        self._pushes.closed = True
        if self._runner is not None:
            await self._runner.cleanup()

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            if request.path.startswith(PUSHES):
                return await self._pushes.answer(request)
            return await self._rest(request)
        except ConnectionError:
            raise  # the reader has gone
        except Exception as error:
            log.exception("door.failed", path=request.path[:100], error=type(error).__name__)
            return answers.problem(request, "HUB-E7013")


def _listen(address: Address) -> socket.socket:
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
    """Header names in lower case. One that came twice holds both values, so that neither passes for the only one."""
    read = dict[str, str]()
    for name, value in request.headers.items():
        lower = name.lower()
        read[lower] = f"{read[lower]}, {value}" if lower in read else value
    return read
