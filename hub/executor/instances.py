"""The executor's state of each instance: its connector, rate limiter, circuit breaker, worker threads and the calls under way.

Every instance has its own threads, so a system that hangs holds up no other. Connectors and people can be replaced while calls
are under way. The circuit breaker also honours Retry-After and refused credentials. It is our own because pybreaker holds one
lock for as long as a call lasts, so that calls through it never overlap, and reads the machine's clock; here the caller passes
the outcome of a call and its time.
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
from hub.executor.command_events import error_message
from hub.executor.retry_policy import MAX_CRASHES, Failure
from hub.kit.connector import CommandSink, Connector, Effect, RateLimits
from hub.runtime import metrics
from hub.runtime.clock import Clock

TICKS_PER_SECOND = 1_000_000
"""pyrate_limiter lets its caller choose the time unit; we use microseconds, since a whole millisecond would be too coarse."""


class RateLimiter:
    """A token bucket of `at_once` tokens, refilled at `per_second`. The caller passes monotonic seconds."""

    def __init__(self, limits: RateLimits) -> None:
        ticks = max(1, round(10 * TICKS_PER_SECOND / limits.per_second))
        self._bucket = StateBucket([Rate(10, ticks, burst=max(1, limits.at_once))])

    def take(self, now: float) -> float:
        """Take one token and return 0.0, or return the seconds until one is available."""
        item = RateItem("call", int(now * TICKS_PER_SECOND))
        if self._bucket.put(item):
            return 0.0
        wait = self._bucket.waiting(item)
        assert isinstance(wait, int)  # only stores over a network return a coroutine
        return max(wait, 1) / TICKS_PER_SECOND


class WorkerPool:
    """Daemon threads, created on demand: a call that never ends must not keep the program from exiting."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def do(self, job: Callable[[], None], max_threads: int) -> None:
        """Run a job in one of at most `max_threads` threads. The job must not raise."""
        if len(self._threads) < max_threads:
            name = f"{self.name}-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)

    def leave(self) -> None:
        """End every thread after its current jobs."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


FAILURE_THRESHOLD = 5
"""Different commands that fail, with no success in between, until the breaker opens. A single failing command does not open it."""
FIRST_PAUSE_S, MAX_PAUSE_S, MAX_REFUSED_PAUSE_S = 1.0, 20.0, 300.0
"""Seconds until the first trial call, and between two at most: for a system that is unreachable, and for one that refuses us."""


@dataclass
class CircuitBreaker:
    """The circuit breaker of one instance, in monotonic seconds. While it is open, one trial call at a time tests for recovery."""

    failing: set[str] = field(default_factory=set)
    trials: int = 0
    until: float = 0.0
    broken_at: float | None = None
    refused: bool = False

    def capacity(self, now: float, running: int, at_once: int) -> int:
        """How many more calls may begin."""
        if now < self.until:
            return 0
        return max(0, (at_once if self.broken_at is None else 1) - running)

    @property
    def broken(self) -> bool:
        """Whether the breaker is open, so that calls are trials."""
        return self.broken_at is not None

    def answered(self, began: float) -> bool:
        """Record a success; True when it ends an outage. A call that `began` before the outage proves nothing about it."""
        if self.broken_at is not None and began < self.broken_at:
            return False
        recovered = self.broken_at is not None
        self.failing, self.trials, self.broken_at, self.refused = set(), 0, None, False
        return recovered

    def failed(self, command: str, began: float, now: float) -> bool:
        """Record a failure; True when it begins an outage."""
        self.failing.add(command)
        if self.broken_at is None and len(self.failing) < FAILURE_THRESHOLD:
            return False
        return self._break(began, now, MAX_PAUSE_S)

    def refuse(self, began: float, now: float) -> bool:
        """Record that the system refuses our credentials; True for the first refusal of an outage."""
        begins = not self.refused
        self._break(began, now, MAX_REFUSED_PAUSE_S)
        self.refused = True
        return begins

    def wait(self, now: float, seconds: float) -> None:
        """Honour a Retry-After of `seconds`."""
        self.until = max(self.until, now + seconds)

    def _break(self, began: float, now: float, longest: float) -> bool:
        first = self.broken_at is None
        if first or began >= self.until:  # a trial; a call that began sooner was let through before the breaker opened
            self.broken_at = now
            self.until = max(self.until, now + min(longest, FIRST_PAUSE_S * 2.0**self.trials))
            self.trials = min(self.trials + 1, 16)
        return first


log = structlog.get_logger(__name__)


@dataclass
class InstanceState:
    """The state of one instance, for any thread. An instance without a connector has one too: its commands are parked."""

    name: str
    clock: Clock
    connector: Connector | None = None
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    calling: set[str] = field(default_factory=set)
    """Calls that await a response: at most the instance's `at_once`."""
    running: set[str] = field(default_factory=set)
    """Calls whose result is not in the ledger yet: those in `calling`, and those whose result is being written."""
    crashes: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    """Command → its unreadable responses since this program started."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.workers = WorkerPool(f"call-{self.name}")
        self.rate_limiter = RateLimiter(self.limits)

    @property
    def sends(self) -> CommandSink | None:
        """The connector's command sink; None without one."""
        return self.connector.sends if self.connector else None

    @property
    def limits(self) -> RateLimits:
        """The connector's limits, or the defaults."""
        return self.sends.limits if self.sends else RateLimits()

    def use(self, connector: Connector | None) -> None:
        """Use another connector from now on; calls under way end with the one that they began with."""
        if connector is not self.connector:
            self.connector = connector
            self.rate_limiter = RateLimiter(self.limits)

    def capacity(self) -> int:
        """How many calls may begin now. Results that wait to be written hold no call slot until `max_threads` are running."""
        with self.lock:
            capacity = self.breaker.capacity(self.clock.monotonic(), len(self.calling), self.limits.at_once)
            return min(capacity, max(0, self.max_threads - len(self.running)))

    @property
    def max_threads(self) -> int:
        """Threads for calls and, at the same time, for writing the results of others."""
        return 2 * self.limits.at_once

    def opens_at(self) -> float:
        """Monotonic seconds before which the breaker lets no call through."""
        return self.breaker.until

    def begin(self, command: str) -> None:
        """Record that a call begins."""
        with self.lock:
            self.running.add(command)
            self.calling.add(command)

    def answered(self, command: str) -> None:
        """Record that the call has ended, whatever its outcome, and only its result is still to be written."""
        with self.lock:
            self.calling.discard(command)

    def finish(self, command: str) -> None:
        """Record that the call has ended and its result is in the ledger."""
        with self.lock:
            self.running.discard(command)
            self.calling.discard(command)

    def crashed(self, command: str) -> int:
        """Count a crash of the connector's code on this command; return how many in a row."""
        with self.lock:
            count = self.crashes.pop(command, 0) + 1
            if count < MAX_CRASHES:  # at the last one the command parks; after a person's fix the count restarts
                self.crashes[command] = count
            return count

    def unreadable(self, command: str) -> int:
        """Count an unreadable response to a command; return how many so far."""
        with self.lock:
            count = self.unread.pop(command, 0) + 1
            if count < self.limits.tries:  # at the last one the command parks; after a person's fix the count restarts
                self.unread[command] = count
            return count

    def record_outcome(self, command: str, outcome: Effect | Failure, began: float) -> bool | None:
        """Update breaker and counters. True when the instance begins to refuse our credentials, False when that ends."""
        error = outcome.error if isinstance(outcome, Failure) else None
        if error is None or isinstance(error, HubError):
            with self.lock:
                self.crashes.pop(command, None)
                if error is None or isinstance(error, RejectedError):
                    self.unread.pop(command, None)
        with self.lock:
            return self._update_breaker(command, error, began)

    def _update_breaker(self, command: str, error: Exception | None, began: float) -> bool | None:
        now = self.clock.monotonic()
        match error:
            case FatalError():
                return self._log_break(self.breaker.refuse(began, now), error) or None
            case UnreadableError():  # the system responded, so it is reachable
                pass
            case RetryableError(retry_after=float() | int() as seconds):
                self.breaker.wait(now, seconds)
            case RetryableError():
                self._log_break(self.breaker.failed(command, began, now), error)
            case None:  # RejectedError proves nothing: the command may not have reached the system
                refused = self.breaker.refused
                if self.breaker.answered(began):
                    log.info("instance.back", instance=self.name)
                    metrics.PAUSED.labels(self.name).set(0)
                    return False if refused else None
        return None

    def _log_break(self, begins: bool, error: HubError) -> bool:
        if begins:
            metrics.PAUSED.labels(self.name).set(1)
            log.warning("instance.paused", instance=self.name, code=error.code, reason=error_message(error))
        return begins


class Instances:
    """The state of every instance, also of those without a connector."""

    def __init__(self, connectors: Mapping[str, Connector], people: AccountLookup, clock: Clock) -> None:
        self.people = people
        self._clock = clock
        self._states: dict[str, InstanceState] = {}
        self._lock = threading.Lock()
        self.use(connectors)

    def use(self, connectors: Mapping[str, Connector]) -> None:
        """Use these connectors from now on."""
        for name in {*connectors, *self._states}:
            self.of(name).use(connectors.get(name))

    def of(self, name: str) -> InstanceState:
        """The state of an instance, created on first use."""
        with self._lock:
            if name not in self._states:
                self._states[name] = InstanceState(name, self._clock)
            return self._states[name]

    def all(self) -> list[InstanceState]:
        """The state of every instance so far."""
        with self._lock:
            return list(self._states.values())

    def target(self, instance: InstanceState) -> CommandTarget | None:
        """How references translate for an instance; None where it understands the hub's own names."""
        if instance.connector is not None and instance.connector.knows_persons:
            return None
        return CommandTarget(instance.name, self.people, tuple(each.name for each in self.all()))
