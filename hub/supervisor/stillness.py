"""Which programs stand still: by their heartbeats, and by what the system says of their processes. Pure: time comes in by looks.

Only time between looks counts, and of a long pause between two no more than a little: when a machine was suspended, or the
supervisor stood still too, nobody is blamed for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LOOK = 1.0
"""Seconds between two looks."""
Finding = Literal["well", "frozen", "dead"]


@dataclass(frozen=True)
class Patience:
    """Seconds until a program is said to stand still (`frozen`), and until it is ended (`dead`)."""

    stopped: float = 3.0
    """In the state that SIGSTOP brings."""
    stopped_end: float = 8.0
    deaf: float = 15.0
    """Without a heartbeat, or, for the broker, an answer. A busy machine makes a loop wait for some, a large chunk a worker's."""
    deaf_end: float = 45.0


BROKER = Patience(deaf=8.0, stopped_end=60.0, deaf_end=60.0)
"""The log's own patience: whoever writes to it waits and loses nothing, and its restart costs everybody a while."""


@dataclass
class Stillness:
    """For how long one run of a program has been seen to stand still."""

    patience: Patience = Patience()
    stopped: float = 0.0
    deaf: float = 0.0
    heard: bool = False
    """Whether it has beaten at all: before that it is starting, and whoever waits for it to be ready gives up on it."""
    _last: float | None = None

    def look(self, now: float, *, beaten: bool, is_stopped: bool) -> Finding:
        """Note one look, `now` in monotonic seconds."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * LOOK)
        self._last, self.heard = now, self.heard or beaten
        self.stopped = self.stopped + elapsed if is_stopped else 0.0
        self.deaf = 0.0 if beaten or not self.heard else self.deaf + elapsed
        if self.stopped >= self.patience.stopped_end or self.deaf >= self.patience.deaf_end:
            return "dead"
        return "frozen" if self.stopped >= self.patience.stopped or self.deaf >= self.patience.deaf else "well"
