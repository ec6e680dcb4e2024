"""Checks the hub's health in a background thread, so that readers get the latest status at once even while stores are unavailable.

Also exports the status as metrics: `GET /metrics` adds them to those of `hub.runtime.metrics`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hub.health.log_look import KafkaLook
from hub.health.looking import Looker, board_places, programs_here
from hub.health.rhythm import Rhythm
from hub.health.status import Facts, HealthLimits, HealthState, HealthStatus, ProgressTracker, Trouble, assess
from hub.home import RULES_BROKEN
from hub.ledger.ledger import read_snapshot
from hub.rules.reload import broken_files
from hub.runtime.clock import Clock, SystemClock


@dataclass(eq=False)
class HealthGauges(Collector):
    """Metrics of the latest status, collected on demand."""

    status: Callable[[], HealthStatus | None]

    def collect(self) -> Iterator[Metric]:
        state = GaugeMetricFamily("hub_state", "How the hub is: 0 ok, 1 degraded, 2 stalled, 3 down.")
        waiting = GaugeMetricFamily("hub_stage_waiting", "What waits at a stage of the hub.", labels=["stage"])
        oldest = GaugeMetricFamily(
            "hub_stage_oldest_seconds", "Seconds for which the oldest of a stage has waited.", labels=["stage"]
        )
        stream = GaugeMetricFamily(
            "hub_stream_age_seconds", "Seconds since a stream was read.", labels=["instance", "stream"]
        )
        parked = GaugeMetricFamily("hub_parked", "Work that is parked, by kind.", labels=["kind"])
        status = self.status()
        if status is None:
            return
        state.add_metric([], status.state)
        for stage in status.stages:
            waiting.add_metric([stage.stage], stage.waiting)
            oldest.add_metric([stage.stage], stage.oldest)
        for each in status.facts.streams:
            stream.add_metric([each.instance, each.stream], (status.facts.at - each.read_at).total_seconds())
        for kind, count in status.facts.parked.items():
            parked.add_metric([kind], count)
        yield from (state, waiting, oldest, stream, parked)


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.home import Home
    from hub.ledger.ledger import Ledger

CHECK_INTERVAL_S = 2.0
"""Seconds between two checks."""
BLIND_AFTER_S = 30.0
"""Seconds without a finished check after which the check itself is reported as stalled."""
DEFAULT_POLL_INTERVAL_S = 5.0
"""Seconds between polls of an instance without an `interval` setting."""
RECHECK_DELAY_S = 2.0
"""Seconds between the two checks of a CLI command, which distinguish a stalled backlog from a slow one."""

log = structlog.get_logger(__name__)


@dataclass
class Watch:
    """Runs the checks. `status` may be called from any thread."""

    look: Callable[[], Facts]
    limits: HealthLimits = field(default_factory=HealthLimits)
    clock: Clock = field(default_factory=SystemClock)
    every: float = CHECK_INTERVAL_S
    close: Callable[[], None] = lambda: None
    rhythm: Rhythm = field(default_factory=Rhythm)
    """The hub's throughput, for pages that show it."""
    _progress: ProgressTracker = field(default_factory=ProgressTracker)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _last: tuple[HealthStatus, float] | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop without waiting: a check in progress ends by itself."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception:
                # An unexpected error must not stop the checks; until one succeeds, `status` reports that they fail.
                log.exception("health.look_failed")
            self._stopping.wait(self.every)
        self.close()

    def turn(self) -> HealthStatus:
        """Run one check."""
        facts, now = self.look(), self.clock.monotonic()
        status = assess(facts, self.limits, self._progress.note(facts, now))
        self._last = (status, now)
        return status

    def status(self) -> HealthStatus | None:
        """The latest status; None before the first check."""
        if self._last is None:
            return None
        status, checked_at = self._last
        age = self.clock.monotonic() - checked_at
        if age <= BLIND_AFTER_S:
            return status
        trouble = Trouble("blind", HealthState.STALLED, {"seconds": age}, seconds=age)
        return replace(status, state=max(status.state, HealthState.STALLED), troubles=(trouble, *status.troubles))


def limits_of(home: Home) -> HealthLimits:
    """The thresholds that `hub.yaml` sets."""
    set_ = home.config.health
    return HealthLimits(oldest=set_.oldest, stream=set_.stream)


def intervals_of(home: Home) -> dict[str, float]:
    """Instance → seconds between its polls, from its settings or the default."""
    return {
        name: float(every)
        if isinstance(every := (entry.model_extra or {}).get("interval"), int | float)
        else DEFAULT_POLL_INTERVAL_S
        for name, entry in home.config.connectors.items()
    }


def watch_of(home: Home, ledger: Ledger) -> Watch:
    """The watch of a program: uses its ledger, and connections of its own to the log and the board store."""

    @contextmanager
    def reading() -> Iterator[Connection | None]:
        with ledger.reading() as conn:
            yield conn

    kafka, rhythm = KafkaLook(home.kafka_client()), Rhythm()
    looker = Looker(
        rhythm=rhythm,
        ledger=reading,
        boards=lambda: board_places(home.boards_url),
        log=lambda: kafka,
        programs=lambda: (True, programs_here(home.data, expected=False)[1]),  # this program itself runs
        intervals=intervals_of(home),
        broken=lambda: broken_files(home.data / RULES_BROKEN),
    )
    return Watch(looker.look, limits_of(home), close=kafka.close, rhythm=rhythm)


def current_status(home: Home, client: Callable[[], dict[str, object]], *, supervised: bool) -> HealthStatus:
    """The status for a CLI command: check once, and once more when something is late, to distinguish stalled from slow.

    `client` returns librdkafka's settings; its HubError means that no broker is available.
    """
    kafka: list[KafkaLook] = []

    def log_look() -> KafkaLook | None:
        if not supervised and home.config.kafka.embedded:
            return None
        if not kafka:
            kafka.append(KafkaLook(client()))
        return kafka[0]

    looker = Looker(
        ledger=lambda: read_snapshot(home.ledger_url, "outbox"),
        boards=lambda: board_places(home.boards_url),
        log=log_look,
        programs=lambda: programs_here(home.data, expected=bool(home.config.kafka.embedded)),
        intervals=intervals_of(home),
        broken=lambda: broken_files(home.data / RULES_BROKEN),
    )
    watch = Watch(looker.look, replace(limits_of(home), still=RECHECK_DELAY_S))
    try:
        status = watch.turn()
        if status.facts.running is not False and any(trouble.seconds for trouble in status.troubles):
            time.sleep(RECHECK_DELAY_S)
            status = watch.turn()
        return status
    finally:
        for each in kafka:
            each.close()
