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
        return request.content.read_nowait()
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > MAX_BODY:
                    raise RejectedError("HUB-E7005")
    except TimeoutError:
        raise RejectedError("HUB-E7007") from None
    return bytes(body)
