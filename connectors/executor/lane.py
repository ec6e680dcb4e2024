"""One instance as the executor sees it: whether and how fast it may be called, and what is under way there."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import structlog

from connectors.executor.crew import Crew
from connectors.executor.events import said
from connectors.executor.gate import Gate
from connectors.executor.pace import Pace
from connectors.executor.verdicts import CRASHES, Failure
from hub import metrics
from hub.clock import Clock
from hub.connector import Connector, Effect, Limits, Sends
from hub.errors import FatalError, HubError, RejectedError, RetryableError, UnreadableError

log = structlog.get_logger(__name__)


@dataclass
class Lane:
    """May be used from any thread. An instance that nobody has connected has a lane too: its commands are parked there."""

    name: str
    clock: Clock
    connector: Connector | None = None
    gate: Gate = field(default_factory=Gate)
    calling: set[str] = field(default_factory=set)
    """Begun, and not answered yet: as many as the instance may have at once."""
    running: set[str] = field(default_factory=set)
    """Begun, and not written down yet: those whose answers are on their way into the ledger too."""
    crashes: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    """How often commands were answered in a way that tells nothing, since this program began."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.crew = Crew(f"call-{self.name}")
        self.pace = Pace(self.limits)

    @property
    def sends(self) -> Sends | None:
        """The face that carries commands out."""
        return self.connector.sends if self.connector else None

    @property
    def limits(self) -> Limits:
        """How hard the instance may be driven."""
        return self.sends.limits if self.sends else Limits()

    def use(self, connector: Connector | None) -> None:
        """Call by another connector from now on; calls under way end by the one that they began with."""
        if connector is not self.connector:
            self.connector = connector
            self.pace = Pace(self.limits)

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
