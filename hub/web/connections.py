"""The door's connections: at most so many, and when one more comes the oldest that asks for nothing gives its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from hub.runtime.program import file_limit

log = structlog.get_logger(__name__)
MOST = 2000
RESERVED = 256
"""Open files that the program needs for everything else."""
SERVER = "hub"
"""What every answer says of us: not the versions of what we are made of."""


def most_connections() -> int:
    """What the limit of open files allows: one on the way to the boards takes two."""
    return max(16, min(MOST, (file_limit() - RESERVED) // 2))


class Reception(web.Server):
    """aiohttp's server, with a bounded number of connections. For the event loop's thread."""

    def __init__(self, handler: Any, most: int | None = None, **settings: Any) -> None:
        super().__init__(handler, handler_cancellation=True, **settings)
        self._most = most
        self._settings = settings
        self._silent: dict[RequestHandler, None] = {}
        self._busy: dict[RequestHandler, web.BaseRequest] = {}

    def __call__(self) -> RequestHandler:
        """A handler for one connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), **self._settings)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Note it; when it is one too many, close another, or it."""
        super().connection_made(handler, transport)
        self._silent[handler] = None
        if len(self._silent) + len(self._busy) > (self._most or most_connections()):
            self._give_way()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget it."""
        self._forget(handler)
        super().connection_lost(handler, exc)

    def _give_way(self) -> None:
        """The oldest that asks for nothing; where only the newest does, the oldest whose body is still coming, else the newest."""
        oldest = next(iter(self._silent))
        if len(self._silent) == 1:
            oldest = next((each for each, asked in self._busy.items() if not asked.content.is_eof()), oldest)
        self._forget(oldest)
        oldest.force_close()

    def _forget(self, handler: RequestHandler) -> None:
        self._silent.pop(handler, None)
        self._busy.pop(handler, None)

    @contextlib.contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """While a request is dealt with on its connection; that is silent again from then on."""
        handler = request.protocol
        if handler in self._silent:
            del self._silent[handler]
            self._busy[handler] = request
        try:
            yield
        finally:
            if self._busy.pop(handler, None) is not None:
                self._silent[handler] = None


class _Connection(RequestHandler):
    """One connection, whose refusals say nothing about us and quote nothing."""

    __slots__ = ()

    async def start(self) -> None:
        """Answer one request after the other; hang up on what no request can be made of."""
        try:
            await super().start()
        except Exception as error:
            # aiohttp fails to make one of `CONNECT \n`, and would leave the connection open with nobody to close it.
            log.info("door.no_request", error=type(error).__name__)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP gets a constant answer, and the end of its connection."""
        if request.writer.output_size > 0:
            raise ConnectionError
        answer = web.Response(status=status, headers={"Server": SERVER, "Cache-Control": "no-store"})
        answer.force_close()
        return answer
