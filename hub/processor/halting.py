"""Stopping one partition before a loss in the log, and going on once the log says that it was dealt with.

The others go on: the partition is fetched no more, and the chunks of it that are under way are set aside, in order. Nothing of
them is called done, so a restart meets the loss again.

No chunk is passed over: what fails here ends the process before anything is committed.

Faust acks a message whose agent raised, was cancelled or could not be decoded. `Chunk.done` keeps the offset where it is, and
leaving at once keeps every later chunk from being folded on a state that was never sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from hub.engine.step import Derive
from hub.errors import HubError, RetryableError
from hub.log.event_log import EventLog, LogWriter
from hub.log.sequence_gaps import SettledGaps, halted
from hub.log.sequences import Dealt, Loss
from hub.processor.source import Chunk
from hub.runtime.watchdog import EXIT_FAILED as EXIT_FAILED
from hub.runtime.watchdog import EXIT_STALLED as EXIT_STALLED
from hub.runtime.watchdog import exit_now

LOOK = 1.0
"""Seconds between looks for the news that a loss was dealt with."""

log = structlog.get_logger("hub.processor")
GoOn = Callable[[Chunk], Awaitable[Loss | None]]
"""Fold a chunk that was set aside; what is missing in it, if it still is not whole."""


@dataclass(eq=False)
class Halt:
    """A partition that stands still."""

    loss: Loss
    aside: deque[Chunk] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


@dataclass
class Halts:
    """The partitions of this worker that stand still. For the event loop's thread."""

    events: EventLog
    writer: LogWriter
    go_on: GoOn
    settled: dict[int, SettledGaps] = field(default_factory=dict)
    pause: Callable[[int], None] = lambda partition: None
    resume: Callable[[int], None] = lambda partition: None
    _halts: dict[int, Halt] = field(default_factory=dict)

    @property
    def partitions(self) -> set[int]:
        """Which stand still now."""
        return set(self._halts)

    def offsets(self, partition: int) -> Dealt:
        """The offsets of a partition that are known to be settled."""
        found = self.settled.get(partition)
        return found.offsets if found else {}

    def set_aside(self, chunk: Chunk) -> bool:
        """Keep a chunk for later if its partition stands still."""
        halt = self._halts.get(chunk.partition)
        if halt is not None:
            halt.aside.append(chunk)
            self.pause(chunk.partition)  # Faust resumes what it is assigned; fetched on, it would fill the memory
        return halt is not None

    def begin(self, loss: Loss, *chunks: Chunk) -> None:
        """Stop the partition of a loss, with the chunks that are in hand."""
        halt = Halt(loss, deque(chunks))
        self._halts[loss.partition] = halt
        self.pause(loss.partition)
        halt.task = asyncio.ensure_future(self._guarded(halt))

    def drop(self) -> None:
        """Forget all: the partitions are another's, or are read from their last commit again."""
        for halt in self._halts.values():
            if halt.task is not None:
                halt.task.cancel()
        self._halts, self.settled = {}, {}

    async def _guarded(self, halt: Halt) -> None:
        """Nobody awaits this task: what it did not foresee ends the process."""
        with ending(halt.loss.partition, halt.loss.offset):
            await self._wait(halt)

    async def _wait(self, halt: Halt) -> None:
        more: Loss | None = halt.loss
        while more is not None:
            await self._is_over(more)
            more = await self._fold_aside(halt.aside)
        del self._halts[halt.loss.partition]
        self.resume(halt.loss.partition)
        log.info("worker.goes-on", partition=halt.loss.partition, offset=halt.loss.offset)

    async def _is_over(self, loss: Loss) -> None:
        """Say what is missing, and wait until that was dealt with."""
        error = loss.error()
        log.error("worker.halted", **error.fields(), **loss._asdict())
        await self._tell(loss)
        while True:
            if await self._is_settled(loss):
                return
            await asyncio.sleep(LOOK)

    async def _fold_aside(self, aside: deque[Chunk]) -> Loss | None:
        """Fold what was set aside meanwhile, in order; what is missing in there, if anything is."""
        while aside:
            again = await self.go_on(aside[0])
            if again is not None:
                return again
            aside.popleft()
        return None

    async def _tell(self, loss: Loss) -> None:
        """Put the alarm where `hub status` and the boards see it."""
        while True:
            with contextlib.suppress(RetryableError):
                return await asyncio.to_thread(self.writer.append, [Derive(halted(loss, datetime.now(UTC))).record()])
            await asyncio.sleep(LOOK)

    async def _is_settled(self, loss: Loss) -> bool:
        if loss.kind == "replaced":
            return False  # what was folded of the old log is wrong for this one: only a restart on new state goes on
        known = self.settled.setdefault(loss.partition, SettledGaps(self.events, loss.partition, loss.offset))
        with contextlib.suppress(RetryableError):
            return loss.offset in await asyncio.to_thread(known.look)
        return False


MOST_FAILURES = 200
"""Failed events in a row, over all cases, after which a release or a rule is taken to be bad and an alarm is logged."""
BEAT = 1.0
LOOP_PATIENCE = 15.0
"""Seconds that the event loop may stand still at least; a machine under load makes it wait for a few."""
PATIENCE = 60.0
"""Seconds that a partition may have records waiting and commit nothing."""


@contextmanager
def guard(chunk: Chunk, leaving: Callable[[int], None] = exit_now) -> Iterator[None]:
    """Run the work on a chunk; when it ends in any other way than well, the process ends with it.

    A cancelled agent (shut-down, rebalance) is let go: its chunk is not done, so whoever has the partition next folds it again.
    """
    with ending(chunk.partition, chunk.records[0].offset, leaving):
        yield


@contextmanager
def ending(partition: int, first: int, leaving: Callable[[int], None] = exit_now) -> Iterator[None]:
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
class EventLoopWatchdog:
    """Ends a process whose event loop stands still: in there no timer would notice, so a thread beside it looks.

    It begins before the first record can be folded.
    """

    patience: float
    leaving: Callable[[int], None] = exit_now
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
