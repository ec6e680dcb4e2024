"""The lanes of all instances, and people's accounts at them: what may be exchanged while calls go on.

How many calls a second an instance gets.

The threads that call one instance, and write down what it answered: one that hangs takes no other instance's.

Whether an instance may be called now: a circuit breaker that also honours Retry-After and refused credentials.

pybreaker holds one lock for as long as a call lasts, so that calls through it never overlap, and it reads the machine's clock;
here the caller tells what became of a call, and when.

One instance as the executor sees it: whether and how fast it may be called, and what is under way there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from pyrate_limiter import Rate, RateItem, StateBucket

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UnreadableError
from hub.executor.argument_resolution import AccountLookup, CommandTarget
from hub.executor.command_events import said
from hub.executor.retry_policy import CRASHES, Failure
from hub.kit.connector import CommandSink, Connector, Effect, RateLimits
from hub.runtime import metrics
from hub.runtime.clock import Clock

TICKS = 1_000_000
"""Of our clock, in a second. The library's unit is its caller's to choose; a whole millisecond would be too coarse."""


class RateLimiter:
    """A token bucket of `at_once` tokens that fills by `per_second`. Times are monotonic seconds, given by the caller."""

    def __init__(self, limits: RateLimits) -> None:
        ticks = max(1, round(10 * TICKS / limits.per_second))
        self._bucket = StateBucket([Rate(10, ticks, burst=max(1, limits.at_once))])

    def take(self, now: float) -> float:
        """Take one token: 0.0, or the seconds after which one will be there."""
        item = RateItem("call", int(now * TICKS))
        if self._bucket.put(item):
            return 0.0
        wait = self._bucket.waiting(item)
        assert isinstance(wait, int)  # a coroutine only for stores over a network
        return max(wait, 1) / TICKS


class WorkerPool:
    """Daemon threads, made when first needed: a call that never ends must not keep the program from leaving."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def do(self, job: Callable[[], None], hands: int) -> None:
        """Have a job done by one of at most `hands` threads. The job must not raise."""
        if len(self._threads) < hands:
            name = f"{self.name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def leave(self) -> None:
        """Have every thread end after the job it has."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


IN_A_ROW = 5
"""Commands that fail, with no success in between, until the instance counts as away. One that fails alone is its own trouble."""
FIRST, LONGEST, LONGEST_REFUSED = 1.0, 20.0, 300.0
"""Seconds until the first trial, and between two at most: of a system that is away, and of one that refuses us."""


@dataclass
class CircuitBreaker:
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


log = structlog.get_logger(__name__)


@dataclass
class InstanceState:
    """May be used from any thread. An instance that nobody has connected has a lane too: its commands are parked there."""

    name: str
    clock: Clock
    connector: Connector | None = None
    gate: CircuitBreaker = field(default_factory=CircuitBreaker)
    calling: set[str] = field(default_factory=set)
    """Begun, and not answered yet: as many as the instance may have at once."""
    running: set[str] = field(default_factory=set)
    """Begun, and not written down yet: those whose answers are on their way into the ledger too."""
    crashes: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    """How often commands were answered in a way that tells nothing, since this program began."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.crew = WorkerPool(f"call-{self.name}")
        self.pace = RateLimiter(self.limits)

    @property
    def sends(self) -> CommandSink | None:
        """The face that carries commands out."""
        return self.connector.sends if self.connector else None

    @property
    def limits(self) -> RateLimits:
        """How hard the instance may be driven."""
        return self.sends.limits if self.sends else RateLimits()

    def use(self, connector: Connector | None) -> None:
        """Call by another connector from now on; calls under way end by the one that they began with."""
        if connector is not self.connector:
            self.connector = connector
            self.pace = RateLimiter(self.limits)

    def room(self) -> int:
        """How many calls may begin now: an answer that waits to be written takes no other's turn, unless many do."""
        with self.lock:
            room = self.gate.room(self.clock.monotonic(), len(self.calling), self.limits.at_once)
            return min(room, max(0, self.hands - len(self.running)))

    @property
    def hands(self) -> int:
        """How many threads it takes to call and, meanwhile, to write down."""
        return 2 * self.limits.at_once

    def opens_at(self) -> float:
        """Monotonic seconds before which the gate lets nothing through."""
        return self.gate.until

    def begin(self, command: str) -> None:
        """A call is under way."""
        with self.lock:
            self.running.add(command)
            self.calling.add(command)

    def answered(self, command: str) -> None:
        """It is over, one way or another, and only has to be written down."""
        with self.lock:
            self.calling.discard(command)

    def finish(self, command: str) -> None:
        """It is over, and written down."""
        with self.lock:
            self.running.discard(command)
            self.calling.discard(command)

    def crashed(self, command: str) -> int:
        """The connector's code broke on this command: how often in a row."""
        with self.lock:
            times = self.crashes.pop(command, 0) + 1
            if times < CRASHES:  # at the last one it parks; what comes after a person's fix is counted anew
                self.crashes[command] = times
            return times

    def unreadable(self, command: str) -> int:
        """A command was answered in a way that tells nothing: how often by now."""
        with self.lock:
            times = self.unread.pop(command, 0) + 1
            if times < self.limits.tries:  # at the last one it parks; after a person's fix it is counted anew
                self.unread[command] = times
            return times

    def learn(self, command: str, ended: Effect | Failure, began: float) -> bool | None:
        """Take in how a call ended. True when this is where the instance begins to refuse us, False where that ends."""
        error = ended.error if isinstance(ended, Failure) else None
        if error is None or isinstance(error, HubError):
            with self.lock:
                self.crashes.pop(command, None)
                if error is None or isinstance(error, RejectedError):
                    self.unread.pop(command, None)
        with self.lock:
            return self._learn(command, error, began)

    def _learn(self, command: str, error: Exception | None, began: float) -> bool | None:
        now = self.clock.monotonic()
        match error:
            case FatalError():
                return self._tell_break(self.gate.refuse(began, now), error) or None
            case UnreadableError():  # it is there, whatever it means
                pass
            case RetryableError(retry_after=float() | int() as seconds):
                self.gate.wait(now, seconds)
            case RetryableError():
                self._tell_break(self.gate.failed(command, began, now), error)
            case None:  # a refused command says little: it may not have got as far as the system
                refused = self.gate.refused
                if self.gate.answered(began):
                    log.info("instance.back", instance=self.name)
                    metrics.PAUSED.labels(self.name).set(0)
                    return False if refused else None
        return None

    def _tell_break(self, news: bool, error: HubError) -> bool:
        if news:
            metrics.PAUSED.labels(self.name).set(1)
            log.warning("instance.paused", instance=self.name, code=error.code, reason=said(error))
        return news


class Instances:
    """One lane for each instance, also for one that nobody has connected."""

    def __init__(self, connectors: Mapping[str, Connector], people: AccountLookup, clock: Clock) -> None:
        self.people = people
        self._clock = clock
        self._lanes: dict[str, InstanceState] = {}
        self._lock = threading.Lock()
        self.use(connectors)

    def use(self, connectors: Mapping[str, Connector]) -> None:
        """Call by these from now on."""
        for name in {*connectors, *self._lanes}:
            self.of(name).use(connectors.get(name))

    def of(self, name: str) -> InstanceState:
        """The lane of an instance."""
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = InstanceState(name, self._clock)
            return self._lanes[name]

    def all(self) -> list[InstanceState]:
        """Every lane."""
        with self._lock:
            return list(self._lanes.values())

    def target(self, lane: InstanceState) -> CommandTarget | None:
        """What references mean there; None where the hub's own names are understood."""
        if lane.connector is not None and lane.connector.knows_persons:
            return None
        return CommandTarget(lane.name, self.people, tuple(each.name for each in self.all()))
