"""What goes wrong, and when: one seeded source for a whole history, asked at every boundary that the product names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

from hub.errors import RetryableError
from hub.runtime import failpoints

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)


class CrashError(BaseException):
    """The program that was moving is gone, as by kill -9. No handler of the product's may take it for an error."""


@dataclass
class SimClock:
    """The one clock of the world; a program sees it `ahead` of its true time."""

    at: datetime = START
    ahead: timedelta = timedelta()
    world: SimClock | None = None

    def now(self) -> datetime:
        return (self.world or self).at + self.ahead

    def monotonic(self) -> float:
        return (self.world or self).at.timestamp()

    def julian_day(self, *_asked: object) -> float:
        """For SQLite's `julianday`, so that the database's clock is this one."""
        return self.at.timestamp() / 86400.0 + 2440587.5


@dataclass
class Rates:
    """How often each trouble comes, per chance of it."""

    crash: float = 0.0
    away: float = 0.0
    unknown: float = 0.0
    """The database or the log took it, and its answer was lost."""
    torn: float = 0.0
    """The log took a part of it."""
    preempt: float = 0.0
    misbehave: float = 0.0
    leap: float = 0.0


@dataclass
class Chance:
    """Decides. `story` is what happened, in short words, for whoever reads a failing seed."""

    random: Random
    rates: Rates
    clock: SimClock = field(default_factory=SimClock)
    story: list[str] = field(default_factory=list)
    interlude: Callable[[], None] = lambda: None
    """Lets other programs move while one stands at a boundary."""
    counts: dict[str, int] = field(default_factory=dict)
    _locked: int = 0
    _deep: int = 0

    def note(self, what: str) -> None:
        self.story.append(what)

    def trouble(self, kind: str, where: str) -> bool:
        """Whether this kind of trouble comes now."""
        if self.random.random() >= getattr(self.rates, kind):
            return False
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.note(f"{kind}@{where}")
        return True

    def pass_by(self, name: str) -> None:
        """A boundary: the program may end here, or stand still while others move."""
        if self.trouble("crash", name):
            raise CrashError(name)
        if not self._locked and self._deep < 2 and self.trouble("preempt", name):
            self._deep += 1
            try:
                self.leap()
                self.interlude()
            finally:
                self._deep -= 1

    def leap(self) -> None:
        """Time passes: mostly a little, seldom longer than any patience."""
        seconds = self.random.choice((0.0, 0.01, 0.3, 2.0))
        if self.trouble("leap", "time"):
            seconds = self.random.choice((7.0, 20.0, 50.0, 100.0))
        self.clock.at += timedelta(seconds=seconds)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside a transaction nobody else moves: there is one database."""
        self._locked += 1
        try:
            yield
        finally:
            self._locked -= 1

    @contextmanager
    def at_failpoints(self) -> Iterator[None]:
        """Be asked wherever the product calls `failpoint`."""
        before = failpoints._armed
        failpoints._armed = cast(Any, self)
        try:
            yield
        finally:
            failpoints._armed = before

    def before(self, where: str, code: str) -> None:
        """Something durable is about to be asked for: it may be away, or we may not live to ask."""
        if self.trouble("away", where):
            raise RetryableError(code, url=where, reason="away", cluster=where)
        self.pass_by(f"{where}.before")

    def after(self, where: str, code: str) -> None:
        """It was done: its answer may be lost, or we may not live to hear it."""
        if self.trouble("unknown", where):
            raise RetryableError(code, url=where, reason="no answer", cluster=where)
        self.pass_by(f"{where}.after")
