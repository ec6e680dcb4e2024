"""`python -m tests.bench.pushers PORT FIRST MANY CONNECTIONS [PER_SECOND]`: signed pushes over kept connections.

They go as fast as they go, or at an even pace: then `began` says when the first one was due, by the machine's monotonic clock.
All are signed before the first is sent, so that the sender's cost weighs little on the machine that both share. Waits for a line on
standard input, then pushes, and ends with one JSON object: how many were accepted, how long that took, how long each waited.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator

import orjson

from tests.pushing import deal, signed

SOON = 0.1
"""Seconds until the first push: every connection is open by then."""
ACCEPTED = b"HTTP/1.1 202"


def request(number: int, other: bytes | None = None) -> bytes:
    """One push, ready to be sent: a deal of its own, or something else, under an id of its own."""
    body = deal(number) if other is None else other
    id_ = f"msg_{number}" if other is None else f"other_{number}"
    head = "".join(f"{name}: {value}\r\n" for name, value in signed(body, id_).items())
    return (
        f"POST /webhooks/crm HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body
    )


class Pusher(asyncio.Protocol):
    """One connection: the next push goes out when the last one is answered."""

    def __init__(self, pushes: Iterator[tuple[float, bytes]], waited: list[float]) -> None:
        self._pushes, self._waited = pushes, waited
        self._heard = b""
        self._sent = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def push(self) -> None:
        """Send the next, or end."""
        following = next(self._pushes, None)
        if following is None:
            self._transport.close()
            return
        due, push = following
        asyncio.get_running_loop().call_at(due, self._write, push)

    def _write(self, push: bytes) -> None:
        self._sent = time.perf_counter()
        self._transport.write(push)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, blank, body = self._heard.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        if not head.startswith(ACCEPTED):
            self.ended.set_exception(AssertionError(f"not accepted: {self._heard[:300]!r}"))
            return
        self._heard = b""
        self._waited.append(time.perf_counter() - self._sent)
        self.push()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def push_all(port: int, pushes: list[bytes], connections: int, per_second: float) -> dict[str, float]:
    """Push them all; raises AssertionError for any answer but 202."""
    loop, waited = asyncio.get_running_loop(), list[float]()
    began = loop.time() + SOON
    left = ((began + number / per_second, push) for number, push in enumerate(pushes))
    pushers = [Pusher(left, waited) for _ in range(connections)]
    for pusher in pushers:
        await loop.create_connection(lambda one=pusher: one, "127.0.0.1", port)  # type: ignore[misc]  # mypy infers no lambda with a default
    for pusher in pushers:
        pusher.push()
    await asyncio.gather(*(pusher.ended for pusher in pushers))
    seconds = loop.time() - began
    assert len(waited) == len(pushes), "a connection was lost"
    waited.sort()
    at = {"p50_ms": 0.5, "p99_ms": 0.99}
    return {
        "began": began,
        "seconds": seconds,
        "per_second": len(waited) / seconds,
        **{label: 1000 * waited[int(share * len(waited))] for label, share in at.items()},
    }


def main(port: int, first: int, many: int, connections: int, per_second: float = math.inf) -> None:
    """Sign, wait to be told, push."""
    pushes = [request(number) for number in range(first, first + many)]
    print("signed", flush=True)
    sys.stdin.readline()
    print(orjson.dumps(asyncio.run(push_all(port, pushes, connections, per_second))).decode(), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]), *map(float, sys.argv[5:]))
