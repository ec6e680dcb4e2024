"""Keeps looking at the hub in a thread of its own: whoever asks how it is gets an answer at once, also while much is away.

The verdict as metrics: what `GET /metrics` adds to those of `hub.runtime.metrics`.
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

from hub.config.home import RULES_BROKEN
from hub.health.log_look import KafkaLook
from hub.health.looking import Looker, board_places, programs_here
from hub.health.rhythm import Rhythm
from hub.health.verdict import Facts, Headway, HealthLimits, HealthState, HealthStatus, Trouble, judge
from hub.ledger.ledger import look_at
from hub.rules.reload import broken_files
from hub.runtime.clock import Clock, SystemClock


@dataclass(eq=False)
class VerdictGauges(Collector):
    """Read from the newest verdict when asked for."""

    verdict: Callable[[], HealthStatus | None]

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
        found = self.verdict()
        if found is None:
            return
        state.add_metric([], found.state)
        for stage in found.stages:
            waiting.add_metric([stage.stage], stage.waiting)
            oldest.add_metric([stage.stage], stage.oldest)
        for each in found.facts.streams:
            stream.add_metric([each.instance, each.stream], (found.facts.at - each.read_at).total_seconds())
        for kind, count in found.facts.parked.items():
            parked.add_metric([kind], count)
        yield from (state, waiting, oldest, stream, parked)


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.config.home import Home
    from hub.ledger.ledger import Ledger

EVERY = 2.0
"""Seconds between two looks."""
BLIND = 30.0
"""Seconds without a finished look after which the look itself is what is told."""
INTERVAL = 5.0
"""Seconds between polls of an instance that does not set them."""
AGAIN = 2.0
"""Seconds between two looks of a command that wants to know whether what is late moves."""

log = structlog.get_logger(__name__)


@dataclass
class Watch:
    """Looks and judges. `verdict` may be called from any thread."""

    look: Callable[[], Facts]
    limits: HealthLimits = field(default_factory=HealthLimits)
    clock: Clock = field(default_factory=SystemClock)
    every: float = EVERY
    close: Callable[[], None] = lambda: None
    rhythm: Rhythm = field(default_factory=Rhythm)
    """How busy the hub is, for those that show it."""
    _headway: Headway = field(default_factory=Headway)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _last: tuple[HealthStatus, float] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, at once: a look that waits for something away ends by itself."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception:
                # What was not foreseen must not blind the watch for good; until it looks again, it says that it does not.
                log.exception("health.look_failed")
            self._stopping.wait(self.every)
        self.close()

    def turn(self) -> HealthStatus:
        """Look and judge once."""
        facts, now = self.look(), self.clock.monotonic()
        found = judge(facts, self.limits, self._headway.note(facts, now))
        self._last = (found, now)
        return found

    def verdict(self) -> HealthStatus | None:
        """The newest verdict; None before the first look."""
        if self._last is None:
            return None
        found, at = self._last
        blind = self.clock.monotonic() - at
        if blind <= BLIND:
            return found
        trouble = Trouble("blind", HealthState.STALLED, {"seconds": blind}, seconds=blind)
        return replace(found, state=max(found.state, HealthState.STALLED), troubles=(trouble, *found.troubles))


def limits_of(home: Home) -> HealthLimits:
    """The thresholds that `hub.yaml` sets."""
    set_ = home.config.health
    return HealthLimits(oldest=set_.oldest, stream=set_.stream)


def intervals_of(home: Home) -> dict[str, float]:
    """Instance → seconds between its polls, as far as its settings say."""
    return {
        name: float(every) if isinstance(every := (entry.model_extra or {}).get("interval"), int | float) else INTERVAL
        for name, entry in home.config.connectors.items()
    }


def watch_of(home: Home, ledger: Ledger) -> Watch:
    """For a program: by its own ledger, and by connections to log and boards that it keeps."""

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
        programs=lambda: (True, programs_here(home.data, expected=False)[1]),  # whoever looks runs
        intervals=intervals_of(home),
        broken=lambda: broken_files(home.data / RULES_BROKEN),
    )
    return Watch(looker.look, limits_of(home), close=kafka.close, rhythm=rhythm)


def verdict_now(home: Home, client: Callable[[], dict[str, object]], *, supervised: bool) -> HealthStatus:
    """For a command: look once, and once more when something is late, to tell what stands from what is slow.

    `client` are librdkafka's settings; HubError from it means that no broker is there to be asked.
    """
    kafka: list[KafkaLook] = []

    def log_look() -> KafkaLook | None:
        if not supervised and home.config.kafka.embedded:
            return None
        if not kafka:
            kafka.append(KafkaLook(client()))
        return kafka[0]

    looker = Looker(
        ledger=lambda: look_at(home.ledger_url, "outbox"),
        boards=lambda: board_places(home.boards_url),
        log=log_look,
        programs=lambda: programs_here(home.data, expected=bool(home.config.kafka.embedded)),
        intervals=intervals_of(home),
        broken=lambda: broken_files(home.data / RULES_BROKEN),
    )
    watch = Watch(looker.look, replace(limits_of(home), still=AGAIN))
    try:
        found = watch.turn()
        if found.facts.running is not False and any(trouble.seconds for trouble in found.troubles):
            time.sleep(AGAIN)
            found = watch.turn()
        return found
    finally:
        for each in kafka:
            each.close()
