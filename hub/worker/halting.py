"""Stopping one partition before a loss in the log, and going on once the log says that it was dealt with.

The others go on: the partition is fetched no more, and the chunks of it that are under way are set aside, in order. Nothing of
them is called done, so a restart meets the loss again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog

from hub.errors import RetryableError
from hub.event_log import EventLog, Writer
from hub.losses import Settled, halted
from hub.outputs import Derive
from hub.sequences import Dealt, Loss
from hub.worker.chunks import Chunk
from hub.worker.guard import ending

LOOK = 1.0
"""Seconds between looks for the news that a loss was dealt with."""

log = structlog.get_logger("hub.worker")
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
    writer: Writer
    go_on: GoOn
    settled: dict[int, Settled] = field(default_factory=dict)
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
        known = self.settled.setdefault(loss.partition, Settled(self.events, loss.partition, loss.offset))
        with contextlib.suppress(RetryableError):
            return loss.offset in await asyncio.to_thread(known.look)
        return False
