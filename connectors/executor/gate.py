"""Whether an instance may be called now: a circuit breaker that also honours Retry-After and refused credentials.

pybreaker holds one lock for as long as a call lasts, so that calls through it never overlap, and it reads the machine's clock;
here the caller tells what became of a call, and when.
"""

from __future__ import annotations

from dataclasses import dataclass

IN_A_ROW = 5
"""Failures without a success in between that open the gate's breaker."""
FIRST, LONGEST, LONGEST_REFUSED = 1.0, 60.0, 300.0
"""Seconds until the first trial, and between two at most: of a system that is away, and of one that refuses us."""


@dataclass
class Gate:
    """The state of one instance, by monotonic seconds. While it is broken, one call at a time tries whether it is back."""

    failures: int = 0
    trials: int = 0
    until: float = 0.0
    broken_at: float | None = None
    refused: bool = False

    def room(self, now: float, running: int, at_once: int) -> int:
        """How many more calls may begin."""
        if now < self.until:
            return 0
        return max(0, (at_once if self.broken_at is None else 1) - running)

    def answered(self, began: float) -> bool:
        """A call that began then was answered; True when that ends an outage. One from before the outage says nothing."""
        if self.broken_at is not None and began < self.broken_at:
            return False
        ended = self.broken_at is not None
        self.failures, self.trials, self.broken_at, self.refused = 0, 0, None, False
        return ended

    def failed(self, began: float, now: float) -> bool:
        """A call got no proper answer; True when that begins an outage."""
        self.failures += 1
        if self.broken_at is None and self.failures < IN_A_ROW:
            return False
        return self._break(began, now, LONGEST)

    def refuse(self, began: float, now: float) -> bool:
        """The system refuses our credentials; True when that is news."""
        news = not self.refused
        self._break(began, now, LONGEST_REFUSED)
        self.refused = True
        return news

    def wait(self, now: float, seconds: float) -> None:
        """The system asks to be left alone for so long."""
        self.until = max(self.until, now + seconds)

    def _break(self, began: float, now: float, longest: float) -> bool:
        first = self.broken_at is None
        if first or began >= self.until:  # a trial; one that began sooner was let through before the gate broke
            self.broken_at = now
            self.until = max(self.until, now + min(longest, FIRST * 2.0**self.trials))
            self.trials = min(self.trials + 1, 16)
        return first
