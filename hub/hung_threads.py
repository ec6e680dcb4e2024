"""Which of a program's threads hang. Each says when it begins a piece of work and when it waits for more; one that stays at the
same piece for too long hangs, and its program ends, so that its supervisor starts it again.

Only time between looks counts, and of a long pause between two no more than a little: of a machine that was suspended, or so
busy that the looks come late themselves, no thread is blamed for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from hub.errors import HubError
from hub.leaving import EXIT_STALLED, leave

PATIENCE = 180.0
"""Seconds for one piece of work. The longest that is sound waits for a log or a database that has gone silent."""
EVERY = 1.0
"""Seconds between two looks."""
FRAMES = 6
"""The innermost places of a hung thread that are told."""

log = structlog.get_logger(__name__)


@dataclass
class Piece:
    """What a thread is at, and for how many seconds it has been seen there, if it has; it may take `times` the patience."""

    name: str
    times: float
    age: float | None = None


@dataclass
class ThreadWatch:
    """The pieces of work that are under way, by the thread that does them."""

    _pieces: dict[int, Piece] = field(default_factory=dict)
    _last: float | None = None

    @contextlib.contextmanager
    def at_work(self, name: str, times: float = 1.0) -> Iterator[None]:
        """This thread does one piece of work for the time of the block, which may hold smaller ones."""
        thread = threading.get_ident()
        outer, self._pieces[thread] = self._pieces.get(thread), Piece(name, times)
        try:
            yield
        finally:
            del self._pieces[thread]
            if outer is not None:
                self._pieces[thread] = Piece(outer.name, outer.times)

    def beat(self) -> None:
        """This thread makes headway with its piece of work, if it is at one."""
        piece = self._pieces.get(threading.get_ident())
        if piece is not None:
            piece.age = None

    def look(self, now: float, patience: float = PATIENCE) -> dict[int, Piece]:
        """Count the time since the last look; the threads that hang, and at what."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * EVERY)
        self._last = now
        there = dict(self._pieces)
        for piece in there.values():
            piece.age = 0.0 if piece.age is None else piece.age + elapsed
        return {thread: piece for thread, piece in there.items() if (piece.age or 0.0) >= patience * piece.times}


_watch = ThreadWatch()
at_work, beat = _watch.at_work, _watch.beat


def follow(loop: asyncio.AbstractEventLoop, patience: float = PATIENCE, leaving: Callable[[int], None] = leave) -> None:
    """Look for as long as this loop turns, and end the process when a thread of it hangs."""
    if loop.is_closed():
        return
    hung = _watch.look(time.monotonic(), patience)
    if not hung:
        loop.call_later(EVERY, follow, loop, patience, leaving)
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
