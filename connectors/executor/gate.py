"""Whether an instance may be called now: a circuit breaker that also honours Retry-After and refused credentials.

pybreaker holds one lock for as long as a call lasts, so that calls through it never overlap, and it reads the machine's clock;
here the caller tells what became of a call, and when.
"""

from __future__ import annotations

from dataclasses import dataclass, field

IN_A_ROW = 5
"""Commands that fail, with no success in between, until the instance counts as away. One that fails alone is its own trouble."""
FIRST, LONGEST, LONGEST_REFUSED = 1.0, 20.0, 300.0
"""Seconds until the first trial, and between two at most: of a system that is away, and of one that refuses us."""


@dataclass
class Gate:
    """The state of one instance, by monotonic seconds. While it is broken, one call at a time tries whether it is back."""

    failing: set[str] = field(default_factory=set)
    trials: int = 0
    until: float = 0.0
    broken_at: float | None = None
    refused: bool = False

    def room(self, now: float, running: int, at_once: int) -> int:
        """How many more calls may begin."""
        if now < self.until:
            return 0
        return max(0, (at_once if self.broken_at is None else 1) - running)

    @property
    def broken(self) -> bool:
        """Whether calls are trials now."""
        return self.broken_at is not None

    def answered(self, began: float) -> bool:
        """A call that began then did its work; True when that ends an outage. One from before the outage says nothing."""
        if self.broken_at is not None and began < self.broken_at:
            return False
        ended = self.broken_at is not None
        self.failing, self.trials, self.broken_at, self.refused = set(), 0, None, False
        return ended

    def failed(self, command: str, began: float, now: float) -> bool:
        """A command got no proper answer; True when that begins an outage."""
        self.failing.add(command)
        if self.broken_at is None and len(self.failing) < IN_A_ROW:
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
