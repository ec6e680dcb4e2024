"""Reading a request's body under caps, so that no sender can fill the memory, hold a place for ever, or keep others out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from hub.errors import RejectedError

MAX_BODY = 1024 * 1024
"""Bytes of one body."""


@dataclass(frozen=True)
class Caps:
    """What bodies that are still under way may take."""

    total: int = 64 * MAX_BODY
    """Bytes of all that are counted; when more come, the slowest makes room."""
    free: int = 64 * 1024
    """Bytes of a body that are not counted: most pushes are smaller, and no stranger's large ones can shut them out."""
    grace: float = 5.0
    """Seconds that a body may take besides those of its rate."""
    rate: int = 32 * 1024
    """Bytes a second at which a body must come, at least."""


class _Unfinished:
    """A body that is still coming."""

    def __init__(self, peer: str) -> None:
        self.peer, self.body, self.counted = peer, bytearray(), 0
        self.gives_way: asyncio.Timeout | None = None
        self.evicted = False


class Bodies:
    """Reads bodies. For the event loop's thread."""

    def __init__(self, caps: Caps | None = None) -> None:
        self._caps = caps or Caps()
        self._coming: dict[_Unfinished, None] = {}
        self._counted: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def read(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The whole body; RejectedError when compressed, too large, too slow, or one too many that is under way.

        What has come counts, not what was announced: a sender that says much and sends little keeps nobody out.
        """
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RejectedError("HUB-E7004")
        if request.headers.get("Expect", "100-continue").strip().lower() != "100-continue":
            raise RejectedError("HUB-E7015")
        if (request.content_length or 0) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        if request.content.is_eof():  # it came with its head, as most do
            body = request.content.read_nowait()
            if len(body) > MAX_BODY:
                raise RejectedError("HUB-E7005")
        else:
            body = await self._filled(request)
        yield body

    async def _filled(self, request: web.BaseRequest) -> bytes:
        coming = _Unfinished(request.remote or "")
        self._coming[coming] = None
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._caps.grace) as coming.gives_way:
                await _invite(request)
                while chunk := await request.content.readany():
                    self._add(coming, chunk)
                    if not coming.evicted:
                        coming.gives_way.reschedule(began + self._caps.grace + len(coming.body) / self._caps.rate)
        except TimeoutError:
            raise RejectedError("HUB-E7006" if coming.evicted else "HUB-E7007") from None
        except web.RequestPayloadError:
            raise RejectedError("HUB-E7009") from None
        except RuntimeError:
            if request.transport is not None:
                raise
            raise ConnectionResetError from None  # aiohttp's word for a sender that has left already
        finally:
            del self._coming[coming]
            self._uncount(coming)
        return bytes(coming.body)

    def _add(self, coming: _Unfinished, chunk: bytes) -> None:
        coming.body += chunk
        if len(coming.body) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        if coming.evicted or len(coming.body) <= self._caps.free:
            return
        self._counted[coming.peer] += len(coming.body) - coming.counted
        coming.counted = len(coming.body)
        while self._counted.total() > self._caps.total:
            self._make_room()

    def _make_room(self) -> None:
        """Give up the body that has been coming for longest, of the peer that takes most: an honest one is there in a moment."""
        peer = self._counted.most_common(1)[0][0]
        slowest = next(each for each in self._coming if each.peer == peer and each.counted)
        slowest.evicted = True
        slowest.body = bytearray()
        self._uncount(slowest)
        if slowest.gives_way is not None:
            slowest.gives_way.reschedule(asyncio.get_running_loop().time())

    def _uncount(self, coming: _Unfinished) -> None:
        self._counted[coming.peer] -= coming.counted
        coming.counted = 0
        if not self._counted[coming.peer]:
            del self._counted[coming.peer]


async def _invite(request: web.BaseRequest) -> None:
    """Tell a sender that asked first to send its body now."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
