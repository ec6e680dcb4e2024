"""What Ctrl-C and SIGTERM do to a hub: the first stops it in order, a second one ends everything at once."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SAME = 1.0
"""Seconds within which a second signal is the same request: a terminal and `timeout` tell a program and its group alike."""
INTERRUPTED = 130


class ToldToStop(BaseException):
    """SIGTERM or SIGINT came."""


@dataclass
class Stopping:
    """Handles both signals. Raises ToldToStop once, and never in the middle of a stop."""

    kill: Callable[[], None]
    """Ends every child with SIGKILL; may be called at any time."""
    leave: Callable[[int], object] = os._exit
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)

    def handle(self) -> None:
        """Handle the signals from now on, also after the block that they stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.told)

    def begin(self) -> None:
        """The stop begins, told or not: no signal may break into it any more."""
        self._since = self.clock() if self._since is None else self._since

    def told(self, *_signal: object) -> None:
        """A signal came."""
        if self._since is None:
            self._since = self.clock()
            raise ToldToStop
        if self.clock() - self._since > SAME:
            with contextlib.suppress(Exception):
                self.kill()
            self.leave(INTERRUPTED)
