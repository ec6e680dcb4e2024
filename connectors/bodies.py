"""Reading a request's body under caps, so that no sender can fill the memory or hold a place for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeVar

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
        """The whole body, counted until the block ends; RejectedError when compressed, too large, too slow or one too many."""
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RejectedError("HUB-E7004")
        length = request.content_length
        if (length or 0) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        counted = (MAX_BODY if length is None else length) if request.can_read_body else 0
        if self._bytes + counted > MAX_WAITING:
            raise RejectedError("HUB-E7006")
        self._bytes += counted
        try:
            yield await _all(request)
        finally:
            self._bytes -= counted


async def _all(request: web.BaseRequest) -> bytes:
    if request.content.is_eof():  # it came with its head, as most do
        return _fits(request.content.read_nowait())
    try:
        async with asyncio.timeout(READ_SECONDS):
            await _invite(request)
            body = bytearray()
            while chunk := await request.content.readany():
                body += chunk
                _fits(body)
    except TimeoutError:
        raise RejectedError("HUB-E7007") from None
    except web.RequestPayloadError:
        raise RejectedError("HUB-E7009") from None
    return bytes(body)


Bytes = TypeVar("Bytes", bytes, bytearray)


def _fits(body: Bytes) -> Bytes:
    if len(body) > MAX_BODY:
        raise RejectedError("HUB-E7005")
    return body


async def _invite(request: web.BaseRequest) -> None:
    """Tell a sender that asked first to send its body now."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
