"""Heartbeat and watchdog: a hung program ends immediately, and its supervisor restarts it.

Watchdog: each thread marks the pieces of work it does (`at_work`). A thread that stays in one piece for too long hangs, and the
program exits. Only the time between checks counts, and a long pause between two checks counts only in part: a suspended or
overloaded machine, on which the checks themselves are late, must not look like a hung thread.

Heartbeat: a program's main loop writes a byte a second into a pipe that its supervisor reads. A pipe instead of a file: a disk that
is full or hangs must not look like a hung program. The heartbeat shows that the event loop runs; it does not show progress, which
`hub.health` checks: a program that waits for an unavailable store, or restores, keeps beating.
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


HEARTBEAT_VARIABLE = "HUB_HEARTBEAT"
"""`FD:INODE` of the pipe. The inode proves that the descriptor is the pipe: a process may inherit the variable without the pipe."""
BEAT_INTERVAL_S = 1.0
"""Seconds between two beats."""


@dataclass
class Heartbeat:
    """The program's side. Without a supervisor it does nothing."""

    descriptor: int | None = None

    @classmethod
    def of_environment(cls, environ: Mapping[str, str] | None = None) -> Heartbeat:
        """The heartbeat pipe that the supervisor passed to this process, if any."""
        setting = (os.environ if environ is None else environ).get(HEARTBEAT_VARIABLE, "")
        descriptor, _, inode = setting.partition(":")
        with contextlib.suppress(ValueError, OSError):
            status = os.fstat(int(descriptor))
            if stat.S_ISFIFO(status.st_mode) and status.st_ino == int(inode):
                return cls(int(descriptor))
        return cls()

    def beat(self) -> None:
        """Write one beat; never blocks. The program goes on when the supervisor does not read, or has ended."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self.descriptor, b".")

    def follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat for as long as this loop runs."""
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
        """A new pipe; a child inherits an end only when it is passed explicitly."""
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        return cls(reading, writing)

    @property
    def environment(self) -> dict[str, str]:
        """The environment variable that passes the pipe to the program."""
        return {HEARTBEAT_VARIABLE: f"{self.writing}:{os.fstat(self.writing).st_ino}"}

    def given(self) -> None:
        """Close this process's copy of the writing end, once the program has it."""
        os.close(self.writing)
        self.writing = -1

    def beaten(self) -> bool:
        """Whether there was a beat since the last call."""
        try:
            return bool(os.read(self.reading, 65_536))
        except OSError:
            return False

    def close(self) -> None:
        """Close the pipe when the run is over."""
        for end in (self.reading, self.writing):
            if end >= 0:
                os.close(end)
        self.reading = self.writing = -1


HANG_TIMEOUT_S = 180.0
"""Seconds for one piece of work. The longest legitimate piece waits for a log or a database that stopped responding."""
LOOK_INTERVAL_S = 1.0
"""Seconds between two checks."""
STACK_FRAMES = 6
"""How many of a hung thread's innermost stack frames are logged."""

log = structlog.get_logger(__name__)


@dataclass
class ThreadWork:
    """A thread's current piece of work, and for how many seconds checks have seen it; it may take `times` the timeout."""

    name: str
    times: float
    age: float | None = None


@dataclass
class ThreadWatch:
    """The pieces of work in progress, by thread."""

    _pieces: dict[int, ThreadWork] = field(default_factory=dict)
    _last: float | None = None

    @contextlib.contextmanager
    def at_work(self, name: str, times: float = 1.0) -> Iterator[None]:
        """The block is one piece of work of this thread; blocks may nest."""
        thread = threading.get_ident()
        outer, self._pieces[thread] = self._pieces.get(thread), ThreadWork(name, times)
        try:
            yield
        finally:
            del self._pieces[thread]
            if outer is not None:
                self._pieces[thread] = ThreadWork(outer.name, outer.times)

    def beat(self) -> None:
        """This thread makes progress with its piece of work, if it has one: reset its age."""
        piece = self._pieces.get(threading.get_ident())
        if piece is not None:
            piece.age = None

    def look(self, now: float, patience: float = HANG_TIMEOUT_S) -> dict[int, ThreadWork]:
        """Add the time since the last check to each piece of work; returns the threads that hang, with their work."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * LOOK_INTERVAL_S)
        self._last = now
        pieces = dict(self._pieces)
        for piece in pieces.values():
            piece.age = 0.0 if piece.age is None else piece.age + elapsed
        return {thread: piece for thread, piece in pieces.items() if (piece.age or 0.0) >= patience * piece.times}


_watch = ThreadWatch()
at_work, beat = _watch.at_work, _watch.beat


def follow(
    loop: asyncio.AbstractEventLoop, patience: float = HANG_TIMEOUT_S, leaving: Callable[[int], None] = exit_now
) -> None:
    """Check for as long as this loop runs, and end the process when one of its threads hangs."""
    if loop.is_closed():
        return
    hung = _watch.look(time.monotonic(), patience)
    if not hung:
        loop.call_later(LOOK_INTERVAL_S, follow, loop, patience, leaving)
        return
    for thread, piece in hung.items():
        error = HubError("HUB-E1017", thread=piece.name, seconds=round(piece.age or 0.0))
        log.error("thread.hangs", **error.fields(), stuck_at=_stack_of(thread))
    leaving(EXIT_STALLED)


def _stack_of(thread: int) -> list[str]:
    """A thread's innermost stack frames, the current one first."""
    frame = sys._current_frames().get(thread)
    places = traceback.extract_stack(frame)[-STACK_FRAMES:] if frame is not None else []
    return [f"{place.filename}:{place.lineno} {place.name}" for place in reversed(places)]
