"""Reads request bodies under caps, so that no sender can exhaust memory, block a slot indefinitely, or shut others out."""

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
    """Limits for bodies in transfer."""

    total: int = 64 * MAX_BODY
    """Bytes of all counted bodies together; beyond that the slowest one is evicted."""
    free: int = 64 * 1024
    """Bytes up to which a body is not counted: most pushes are smaller, so that large bodies of others cannot shut them out."""
    grace: float = 5.0
    """Seconds that a body may take in addition to those of its rate."""
    rate: int = 32 * 1024
    """Minimum transfer rate of a body, in bytes per second."""


class _Transfer:
    """A body in transfer."""

    def __init__(self, peer: str) -> None:
        self.peer, self.body, self.counted = peer, bytearray(), 0
        self.deadline: asyncio.Timeout | None = None
        self.evicted = False


class Bodies:
    """The reader of bodies. For the event loop's thread."""

    def __init__(self, caps: Caps | None = None) -> None:
        self._caps = caps or Caps()
        self._transfers: dict[_Transfer, None] = {}
        self._counted: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def read(self, request: web.BaseRequest) -> AsyncIterator[bytes]:
        """The whole body; RejectedError when it is compressed, too large, too slow, or evicted to make room.

        Received bytes count, not the announced length: a sender that announces much and sends little shuts out no other sender.
        """
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise RejectedError("HUB-E7004")
        if request.headers.get("Expect", "100-continue").strip().lower() != "100-continue":
            raise RejectedError("HUB-E7015")
        if (request.content_length or 0) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        if request.content.is_eof():  # already received with the head, as most are
            body = request.content.read_nowait()
            if len(body) > MAX_BODY:
                raise RejectedError("HUB-E7005")
        else:
            body = await self._receive(request)
        yield body

    async def _receive(self, request: web.BaseRequest) -> bytes:
        transfer = _Transfer(request.remote or "")
        self._transfers[transfer] = None
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._caps.grace) as transfer.deadline:
                await _invite(request)
                while chunk := await request.content.readany():
                    self._add(transfer, chunk)
                    if not transfer.evicted:
                        transfer.deadline.reschedule(started + self._caps.grace + len(transfer.body) / self._caps.rate)
        except TimeoutError:
            raise RejectedError("HUB-E7006" if transfer.evicted else "HUB-E7007") from None
        except web.RequestPayloadError:
            raise RejectedError("HUB-E7009") from None
        except RuntimeError:
            if request.transport is not None:
                raise
            raise ConnectionResetError from None  # how aiohttp reports a sender that has disconnected
        finally:
            del self._transfers[transfer]
            self._uncount(transfer)
        return bytes(transfer.body)

    def _add(self, transfer: _Transfer, chunk: bytes) -> None:
        transfer.body += chunk
        if len(transfer.body) > MAX_BODY:
            raise RejectedError("HUB-E7005")
        if transfer.evicted or len(transfer.body) <= self._caps.free:
            return
        self._counted[transfer.peer] += len(transfer.body) - transfer.counted
        transfer.counted = len(transfer.body)
        while self._counted.total() > self._caps.total:
            self._make_room()

    def _make_room(self) -> None:
        """Evict the longest transfer of the peer with the most counted bytes: an honest sender's body completes within moments."""
        peer = self._counted.most_common(1)[0][0]
        slowest = next(each for each in self._transfers if each.peer == peer and each.counted)
        slowest.evicted = True
        slowest.body = bytearray()
        self._uncount(slowest)
        if slowest.deadline is not None:
            slowest.deadline.reschedule(asyncio.get_running_loop().time())

    def _uncount(self, transfer: _Transfer) -> None:
        self._counted[transfer.peer] -= transfer.counted
        transfer.counted = 0
        if not self._counted[transfer.peer]:
            del self._counted[transfer.peer]


async def _invite(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`, so that the sender sends its body."""
    if "Expect" in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
