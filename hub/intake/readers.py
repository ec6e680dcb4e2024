"""A thread pool that parses large or complex pushes off the event loop, so that one sender's push does not delay the others.

The threads share the GIL with the event loop and yield to it every half millisecond; pushes of one instance are parsed one by one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from hub.config.strict_json import has_few_values
from hub.errors import HubError

T = TypeVar("T")


class UnavailableError(HubError):
    """The push is fine but cannot be accepted now; the sender should retry a moment later."""


@dataclass(frozen=True)
class Load:
    """Limits of concurrent parsing and of the waiting queue."""

    threads: int = 4
    waiting: int = 32 * 1024 * 1024
    """Bytes of one instance that may wait to be parsed; beyond that, pushes get UnavailableError."""
    seconds: float = 10.0
    """How long a push may wait."""
    light_bytes: int = 8 * 1024
    light_values: int = 200
    """Up to both limits, parsing costs less than a thread handover and is done at once."""


class Readers:
    """A small thread pool. Call `run` on the event loop's thread."""

    def __init__(self, load: Load | None = None) -> None:
        self._load = load or Load()
        self._pool = ThreadPoolExecutor(self._load.threads, thread_name_prefix="reader")
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: Counter[str] = Counter()

    async def run(self, instance: str, body: bytes, work: Callable[[], T]) -> T:
        """The result of `work`, which parses `body`; raises UnavailableError when too much of the instance waits already."""
        if len(body) <= self._load.light_bytes and has_few_values(body, self._load.light_values):
            return work()
        if self._waiting[instance] + len(body) > self._load.waiting:
            raise UnavailableError("HUB-E7006")
        self._waiting[instance] += len(body)
        try:
            return await self._in_turn(instance, work)
        finally:
            self._waiting[instance] -= len(body)

    async def _in_turn(self, instance: str, work: Callable[[], T]) -> T:
        turn = self._turns.setdefault(instance, asyncio.Lock())
        try:
            async with asyncio.timeout(self._load.seconds):
                await turn.acquire()
        except TimeoutError:
            raise UnavailableError("HUB-E7006") from None
        done = asyncio.get_running_loop().run_in_executor(self._pool, work)
        done.add_done_callback(
            lambda _: turn.release()
        )  # not sooner: a sender that disconnects does not stop the thread
        return await asyncio.shield(done)

    def close(self) -> None:
        """Start no more work; returns at once."""
        self._pool.shutdown(wait=False, cancel_futures=True)
