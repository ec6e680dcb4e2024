"""Halts one partition at a sequence gap, ends the process when a chunk fails, and ends a worker that stalls.

A halted partition is fetched no more, and its open chunks are set aside, in order, until the log shows that a person has settled
the gap; the other partitions continue. The chunks are not marked as done, so a restart finds the gap again.

No chunk is skipped: an unexpected failure ends the process before anything is committed. Faust acks a message whose agent raised
or was cancelled, or that it could not decode. Here the offset only moves by `Chunk.done`, and exiting at once prevents that a later
chunk is folded on state that was never sent.
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

from hub.engine.step import EmitEvent
from hub.errors import HubError, RetryableError
from hub.log.event_log import EventLog, LogWriter
from hub.log.sequence_gaps import SettledGaps, halted
from hub.log.sequences import Loss, SettledOffsets
from hub.processor.source import Chunk
from hub.runtime.watchdog import EXIT_FAILED as EXIT_FAILED
from hub.runtime.watchdog import EXIT_STALLED as EXIT_STALLED
from hub.runtime.watchdog import exit_now

POLL_INTERVAL_S = 1.0
"""Seconds between two checks of whether a gap has been settled."""

log = structlog.get_logger("hub.processor")
FoldChunk = Callable[[Chunk], Awaitable[Loss | None]]
"""Folds a chunk that was set aside; returns the next gap in it, if there is one."""


@dataclass(eq=False)
class Halt:
    """A halted partition."""

    loss: Loss
    aside: deque[Chunk] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


@dataclass
class PartitionHalts:
    """The halted partitions of this worker. For the event loop's thread."""

    events: EventLog
    writer: LogWriter
    fold: FoldChunk
    settled: dict[int, SettledGaps] = field(default_factory=dict)
    pause: Callable[[int], None] = lambda partition: None
    resume: Callable[[int], None] = lambda partition: None
    _halts: dict[int, Halt] = field(default_factory=dict)

    @property
    def partitions(self) -> set[int]:
        """The partitions that are halted now."""
        return set(self._halts)

    def offsets(self, partition: int) -> SettledOffsets:
        """The settled gaps of a partition, by offset, as far as is known."""
        gaps = self.settled.get(partition)
        return gaps.offsets if gaps else {}

    def set_aside(self, chunk: Chunk) -> bool:
        """Set a chunk aside if its partition is halted; return whether it is."""
        halt = self._halts.get(chunk.partition)
        if halt is not None:
            halt.aside.append(chunk)
            self.pause(chunk.partition)  # Faust resumes partitions on assignment; further fetches would fill the memory
        return halt is not None

    def begin(self, loss: Loss, *chunks: Chunk) -> None:
        """Halt the partition of a gap, with its open chunks."""
        halt = Halt(loss, deque(chunks))
        self._halts[loss.partition] = halt
        self.pause(loss.partition)
        halt.task = asyncio.ensure_future(self._guarded(halt))

    def drop(self) -> None:
        """End all halts: the partitions are revoked, or are read again from their last commit."""
        for halt in self._halts.values():
            if halt.task is not None:
                halt.task.cancel()
        self._halts, self.settled = {}, {}

    async def _guarded(self, halt: Halt) -> None:
        """No task awaits this one: an unexpected error ends the process."""
        with exit_on_failure(halt.loss.partition, halt.loss.offset):
            await self._wait(halt)

    async def _wait(self, halt: Halt) -> None:
        more: Loss | None = halt.loss
        while more is not None:
            await self._wait_until_settled(more)
            more = await self._fold_aside(halt.aside)
        del self._halts[halt.loss.partition]
        self.resume(halt.loss.partition)
        log.info("worker.goes-on", partition=halt.loss.partition, offset=halt.loss.offset)

    async def _wait_until_settled(self, loss: Loss) -> None:
        """Log and announce the gap, and wait until it is settled."""
        error = loss.error()
        log.error("worker.halted", **error.fields(), **loss._asdict())
        await self._announce(loss)
        while True:
            if await self._is_settled(loss):
                return
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _fold_aside(self, aside: deque[Chunk]) -> Loss | None:
        """Fold the chunks set aside, in order; return the next gap in them, if there is one."""
        while aside:
            loss = await self.fold(aside[0])
            if loss is not None:
                return loss
            aside.popleft()
        return None

    async def _announce(self, loss: Loss) -> None:
        """Send the alarm as an event, for `hub status` and the boards."""
        while True:
            with contextlib.suppress(RetryableError):
                return await asyncio.to_thread(
                    self.writer.append, [EmitEvent(halted(loss, datetime.now(UTC))).record()]
                )
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _is_settled(self, loss: Loss) -> bool:
        if loss.kind == "replaced":
            return False  # state folded from the old log is wrong for this one: only a restart on new state continues
        known = self.settled.setdefault(loss.partition, SettledGaps(self.events, loss.partition, loss.offset))
        with contextlib.suppress(RetryableError):
            return loss.offset in await asyncio.to_thread(known.look)
        return False


MAX_FAILURES_IN_A_ROW = 200
"""Failed events in a row, over all cases, after which a bad release or rule is suspected and an alarm is logged."""
HEARTBEAT_INTERVAL_S = 1.0
LOOP_STALL_S = 15.0
"""Seconds without progress after which the event loop counts as stalled; a machine under load blocks it for a few."""
PARTITION_STALL_S = 60.0
"""Seconds that a partition may have records waiting without a commit."""


@contextmanager
def guard(chunk: Chunk, leaving: Callable[[int], None] = exit_now) -> Iterator[None]:
    """Run the work on a chunk; an exception in it ends the process.

    A cancelled agent (shut-down, rebalance) does not: its chunk is not done, so the partition's next owner folds it again.
    """
    with exit_on_failure(chunk.partition, chunk.records[0].offset, leaving):
        yield


@contextmanager
def exit_on_failure(partition: int, first: int, leaving: Callable[[int], None] = exit_now) -> Iterator[None]:
    """As `guard`, for work on a partition from offset `first`."""
    try:
        yield
    except Exception as error:
        reason = error.message() if isinstance(error, HubError) else f"{type(error).__name__}: {error}"
        code = error.code if isinstance(error, HubError) else None
        log.error("worker.leaves", code=code, reason=reason, partition=partition, first=first, exc_info=True)
        leaving(EXIT_FAILED)
        raise


@dataclass
class FailureRun:
    """Counts failed events in a row. A failed event is parked and can be retried, so it is no reason to stop for the others."""

    length: int = 0

    def note(self, applied: int, failed: int) -> bool:
        """Add a chunk's counts; True once in each run of more than `MAX_FAILURES_IN_A_ROW` failures."""
        before, self.length = self.length, self.length + failed if failed == applied and failed else 0
        return before <= MAX_FAILURES_IN_A_ROW < self.length


@dataclass
class PartitionWatchdog:
    """Detects a partition with work and no progress: Faust is known to stall silently like this (its issue 175 and others)."""

    patience: float = PARTITION_STALL_S
    since: dict[int, tuple[int, float]] = field(default_factory=dict)

    def look(self, partition: int, position: int, end: int, now: float) -> bool:
        """Note a partition's position; True when it has not moved for longer than `patience` with records waiting."""
        before = self.since.get(partition)
        if before is None or before[0] != position or position >= end:
            self.since[partition] = (position, now)
            return False
        return now - before[1] > self.patience

    def forget(self, partitions: set[int]) -> None:
        """Stop watching partitions that other workers own now."""
        self.since = {partition: since for partition, since in self.since.items() if partition not in partitions}


@dataclass
class EventLoopWatchdog:
    """Ends a process whose event loop is blocked. A thread checks it, since no timer in the loop could.

    It starts before the first record can be folded.
    """

    patience: float
    leaving: Callable[[int], None] = exit_now
    last: float | None = None
    _thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this loop from now on; a second call changes nothing."""
        if self._thread is None:
            self._beat(loop)
            self._thread = threading.Thread(target=self._watch, name="pulse", daemon=True)
            self._thread.start()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.last = monotonic()
        loop.call_later(HEARTBEAT_INTERVAL_S, self._beat, loop)

    def _watch(self) -> None:
        while not self.is_stalled(monotonic()):
            time.sleep(1.0)
        log.error("worker.stalled", where="loop", seconds=round(self.patience))
        self.leaving(EXIT_STALLED)

    def is_stalled(self, now: float) -> bool:
        """Whether the last beat is older than `patience`."""
        return self.last is not None and now - self.last > self.patience


def monotonic() -> float:
    """Monotonic seconds."""
    return time.monotonic()
