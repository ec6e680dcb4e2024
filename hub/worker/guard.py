"""No chunk is passed over: what fails here ends the process before anything is committed.

Faust acks a message whose agent raised, was cancelled or could not be decoded. `Chunk.done` keeps the offset where it is, and
leaving at once keeps every later chunk from being folded on a state that was never sent.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from hub.errors import HubError
from hub.leaving import EXIT_FAILED as EXIT_FAILED
from hub.leaving import EXIT_STALLED as EXIT_STALLED
from hub.leaving import leave as leave
from hub.worker.chunks import Chunk

MOST_FAILURES = 200
"""Failed events in a row, over all cases, after which a release or a rule is taken to be bad and an alarm is logged."""
BEAT = 1.0
LOOP_PATIENCE = 15.0
"""Seconds that the event loop may stand still at least; a machine under load makes it wait for a few."""
PATIENCE = 60.0
"""Seconds that a partition may have records waiting and commit nothing."""

log = structlog.get_logger("hub.worker")


@contextmanager
def guard(chunk: Chunk, leaving: Callable[[int], None] = leave) -> Iterator[None]:
    """Run the work on a chunk; when it ends in any other way than well, the process ends with it.

    A cancelled agent (shut-down, rebalance) is let go: its chunk is not done, so whoever has the partition next folds it again.
    """
    with ending(chunk.partition, chunk.records[0].offset, leaving):
        yield


@contextmanager
def ending(partition: int, first: int, leaving: Callable[[int], None] = leave) -> Iterator[None]:
    """As `guard`, for work on a partition from offset `first` on."""
    try:
        yield
    except Exception as error:
        said = error.message() if isinstance(error, HubError) else f"{type(error).__name__}: {error}"
        code = error.code if isinstance(error, HubError) else None
        log.error("worker.leaves", code=code, reason=said, partition=partition, first=first, exc_info=True)
        leaving(EXIT_FAILED)
        raise


@dataclass
class FailureRun:
    """Counts failed events in a row. What fails is parked and can be retried, so that it is no reason to stop for the others."""

    length: int = 0

    def note(self, applied: int, failed: int) -> bool:
        """Count a chunk in; True when too many have failed since one went well, once for each such run."""
        before, self.length = self.length, self.length + failed if failed == applied and failed else 0
        return before <= MOST_FAILURES < self.length


@dataclass
class Watchdog:
    """Notices a partition that has work and makes no headway: Faust is known to stall so, silently (its issue 175 and others)."""

    patience: float = PATIENCE
    since: dict[int, tuple[int, float]] = field(default_factory=dict)

    def look(self, partition: int, position: int, end: int, now: float) -> bool:
        """Note where a partition is; True when it has stood still with records waiting for longer than the patience."""
        before = self.since.get(partition)
        if before is None or before[0] != position or position >= end:
            self.since[partition] = (position, now)
            return False
        return now - before[1] > self.patience

    def forget(self, partitions: set[int]) -> None:
        """Stop looking at partitions that others have now."""
        self.since = {partition: seen for partition, seen in self.since.items() if partition not in partitions}


@dataclass
class Pulse:
    """Ends a process whose event loop stands still: in there no timer would notice, so a thread beside it looks.

    It begins before the first record can be folded.
    """

    patience: float
    leaving: Callable[[int], None] = leave
    last: float | None = None
    _thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this loop from now on; again is no harm."""
        if self._thread is None:
            self._beat(loop)
            self._thread = threading.Thread(target=self._look, name="pulse", daemon=True)
            self._thread.start()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last = monotonic()
        loop.call_later(BEAT, self._beat, loop)

    def _look(self) -> None:
        while not self.stands_still(monotonic()):
            time.sleep(1.0)
        log.error("worker.stalled", where="loop", seconds=round(self.patience))
        self.leaving(EXIT_STALLED)

    def stands_still(self, now: float) -> bool:
        """Whether the last beat is too long ago."""
        return self.last is not None and now - self.last > self.patience


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()
