"""An HTTP server with a bounded number of connections: at the limit, a new one evicts the oldest idle one."""

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
MAX_CONNECTIONS = 2000
"""Upper bound, whatever the limit of open files."""
RESERVED_FILES = 256
"""Open files reserved for the rest of the program."""
SERVER = "hub"
"""The `Server` header of every response: it reveals no library versions."""


def max_connections() -> int:
    """The number of connections that the limit of open files allows: a proxied one uses two files."""
    return max(16, min(MAX_CONNECTIONS, (file_limit() - RESERVED_FILES) // 2))


class BoundedServer(web.Server):
    """aiohttp's server with a limit on connections. For the event loop's thread."""

    def __init__(self, handler: Any, limit: int | None = None, **settings: Any) -> None:
        super().__init__(handler, handler_cancellation=True, **settings)
        self._limit = limit
        self._settings = settings
        self._idle: dict[RequestHandler, None] = {}
        self._busy: dict[RequestHandler, web.BaseRequest] = {}

    def __call__(self) -> RequestHandler:
        """A handler for one connection."""
        return _Connection(self, loop=asyncio.get_running_loop(), **self._settings)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Register a connection; beyond the limit, close another one, or this one."""
        super().connection_made(handler, transport)
        self._idle[handler] = None
        if len(self._idle) + len(self._busy) > (self._limit or max_connections()):
            self._evict()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Unregister a connection."""
        self._unregister(handler)
        super().connection_lost(handler, exc)

    def _evict(self) -> None:
        """Close the oldest idle connection; if only the newest is idle, the oldest still receiving its body, else the newest."""
        oldest = next(iter(self._idle))
        if len(self._idle) == 1:
            oldest = next((each for each, request in self._busy.items() if not request.content.is_eof()), oldest)
        self._unregister(oldest)
        oldest.force_close()

    def _unregister(self, handler: RequestHandler) -> None:
        self._idle.pop(handler, None)
        self._busy.pop(handler, None)

    @contextlib.contextmanager
    def answering(self, request: web.BaseRequest) -> Iterator[None]:
        """Mark the connection of a request as busy while it is answered, then as idle."""
        handler = request.protocol
        if handler in self._idle:
            del self._idle[handler]
            self._busy[handler] = request
        try:
            yield
        finally:
            if self._busy.pop(handler, None) is not None:
                self._idle[handler] = None


class _Connection(RequestHandler):
    """One connection; its error responses reveal nothing about the server and quote nothing."""

    __slots__ = ()

    async def start(self) -> None:
        """Answer one request after the other; close the connection on bytes that aiohttp cannot parse."""
        try:
            await super().start()
        except Exception as error:
            # aiohttp raises on `CONNECT \n`, and would leave the connection open forever.
            log.info("door.no_request", error=type(error).__name__)
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer invalid HTTP with a constant response, and close the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError
        answer = web.Response(status=status, headers={"Server": SERVER, "Cache-Control": "no-store"})
        answer.force_close()
        return answer
