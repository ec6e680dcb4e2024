"""Reading a request's body under caps, so that no sender can fill the memory or hold a place for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from hub.errors import RejectedError

MAX_BODY = 1024 * 1024
"""Bytes of one body."""
MAX_WAITING = 64 * MAX_BODY
"""Bytes of bodies that are under way at once; more are told to come again."""
READ_SECONDS = 10.0
"""Until a body must have come in full."""


class Bodies:
    """Reads bodies. For the event loop's thread."""

    def __init__(self) -> None:
        self._bytes = 0

    @contextlib.asynccontextmanager
    async def read(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The whole body, counted until the block ends; RejectedError when compressed, too large, too slow or one too many.

        What has come counts, not what was announced: a sender that says much and sends little keeps nobody out.
        """
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RejectedError("HUB-E7004")
        if (request.content_length or 0) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        body = bytearray()
        try:
            await self._fill(body, request)
            yield bytes(body)
        finally:
            self._bytes -= len(body)

    async def _fill(self, body: bytearray, request: web.BaseRequest) -> None:
        if request.content.is_eof():  # it came with its head, as most do
            self._add(body, request.content.read_nowait())
            return
        try:
            async with asyncio.timeout(READ_SECONDS):
                await _invite(request)
                while chunk := await request.content.readany():
                    self._add(body, chunk)
        except TimeoutError:
            raise RejectedError("HUB-E7007") from None
        except web.RequestPayloadError:
            raise RejectedError("HUB-E7009") from None

    def _add(self, body: bytearray, chunk: bytes) -> None:
        body += chunk
        self._bytes += len(chunk)
        if len(body) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        if self._bytes > MAX_WAITING:
            raise RejectedError("HUB-E7006")


async def _invite(request: web.BaseRequest) -> None:
    """Tell a sender that asked first to send its body now."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
