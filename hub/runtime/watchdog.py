"""Which of a program's threads hang. Each says when it begins a piece of work and when it waits for more; one that stays at the
same piece for too long hangs, and its program ends, so that its supervisor starts it again.

Only time between looks counts, and of a long pause between two no more than a little: of a machine that was suspended, or so
busy that the looks come late themselves, no thread is blamed for it.

How a program ends that must not go on for another moment: its supervisor starts it again.

A program's heartbeat: its main loop writes a byte a second into a pipe that its supervisor reads.

A pipe, and no file: a disk that is full or stands still must not pass for a program that does. It says that the loop turns and
nothing about headway, which `hub.health` judges: a program that waits for an away store, or restores, beats on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from hub.errors import HubError

EXIT_FAILED, EXIT_STALLED = 70, 71


def exit_now(code: int) -> None:
    """End the process now: no handler, no commit, no clean-up that could acknowledge anything."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


VARIABLE = "HUB_HEARTBEAT"
"""`FD:INODE` of the pipe. The inode proves that the descriptor is that pipe: others may get the environment, and not the pipe."""
BEAT_INTERVAL_S = 1.0
"""Seconds between two beats."""


@dataclass
class Heart:
    """The program's side. Without a supervisor it beats for nobody."""

    descriptor: int | None = None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Heart:
        """The heart that the supervisor has given this process, if it has."""
        told = (os.environ if environ is None else environ).get(VARIABLE, "")
        descriptor, _, inode = told.partition(":")
        with contextlib.suppress(ValueError, OSError):
            found = os.fstat(int(descriptor))
            if stat.S_ISFIFO(found.st_mode) and found.st_ino == int(inode):
                return cls(int(descriptor))
        return cls()

    def beat(self) -> None:
        """Beat once; never waits. A supervisor that reads nothing, or has gone, is no reason to end."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self.descriptor, b".")

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as this loop turns."""
        if self.descriptor is not None and not loop.is_closed():
            self.beat()
            loop.call_later(BEAT_INTERVAL_S, self.follow, loop)


@dataclass
class HeartbeatMonitor:
    """The supervisor's side of one run of a program."""

    reading: int
    writing: int

    @classmethod
    def new(cls) -> HeartbeatMonitor:
        """A new pipe; neither end is inherited but by whom it is given to."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        return cls(reading, writing)

    @property
    def environment(self) -> dict[str, str]:
        """What tells the program of it."""
        return {VARIABLE: f"{self.writing}:{os.fstat(self.writing).st_ino}"}

    def given(self) -> None:
        """The program has its end: this process lets go of it."""
        os.close(self.writing)
        self.writing = -1

    def beaten(self) -> bool:
        """Whether there was a beat since this was asked last."""
        try:
            return bool(os.read(self.reading, 65_536))
        except OSError:
            return False

    def close(self) -> None:
        """The run is over."""
        for end in (self.reading, self.writing):
            if end >= 0:
                os.close(end)
        self.reading = self.writing = -1


PATIENCE = 180.0
"""Seconds for one piece of work. The longest that is sound waits for a log or a database that has gone silent."""
LOOK_INTERVAL_S = 1.0
"""Seconds between two looks."""
FRAMES = 6
"""The innermost places of a hung thread that are told."""

log = structlog.get_logger(__name__)


@dataclass
class ThreadWork:
    """What a thread is at, and for how many seconds it has been seen there, if it has; it may take `times` the patience."""

    name: str
    times: float
    age: float | None = None


@dataclass
class ThreadWatch:
    """The pieces of work that are under way, by the thread that does them."""

    _pieces: dict[int, ThreadWork] = field(default_factory=dict)
    _last: float | None = None

    @contextlib.contextmanager
    def at_work(self, name: str, times: float = 1.0) -> Iterator[None]:
        """This thread does one piece of work for the time of the block, which may hold smaller ones."""
        thread = threading.get_ident()
        outer, self._pieces[thread] = self._pieces.get(thread), ThreadWork(name, times)
        try:
            yield
        finally:
            del self._pieces[thread]
            if outer is not None:
                self._pieces[thread] = ThreadWork(outer.name, outer.times)

    def beat(self) -> None:
        """This thread makes headway with its piece of work, if it is at one."""
        piece = self._pieces.get(threading.get_ident())
        if piece is not None:
            piece.age = None

    def look(self, now: float, patience: float = PATIENCE) -> dict[int, ThreadWork]:
        """Count the time since the last look; the threads that hang, and at what."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * LOOK_INTERVAL_S)
        self._last = now
        there = dict(self._pieces)
        for piece in there.values():
            piece.age = 0.0 if piece.age is None else piece.age + elapsed
        return {thread: piece for thread, piece in there.items() if (piece.age or 0.0) >= patience * piece.times}


_watch = ThreadWatch()
at_work, beat = _watch.at_work, _watch.beat


def follow(
    loop: asyncio.AbstractEventLoop, patience: float = PATIENCE, leaving: Callable[[int], None] = exit_now
) -> None:
    """Look for as long as this loop turns, and end the process when a thread of it hangs."""
    if loop.is_closed():
        return
    hung = _watch.look(time.monotonic(), patience)
    if not hung:
        loop.call_later(LOOK_INTERVAL_S, follow, loop, patience, leaving)
        return
    for thread, piece in hung.items():
        error = HubError("HUB-E1017", thread=piece.name, seconds=round(piece.age or 0.0))
        log.error("thread.hangs", **error.fields(), stuck_at=_where(thread))
    leaving(EXIT_STALLED)


def _where(thread: int) -> list[str]:
    """The innermost places of a thread, the very one first."""
    frame = sys._current_frames().get(thread)
    places = traceback.extract_stack(frame)[-FRAMES:] if frame is not None else []
    return [f"{place.filename}:{place.lineno} {place.name}" for place in reversed(places)]
