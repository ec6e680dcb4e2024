"""The verdict as metrics: what `GET /metrics` adds to those of `hub.metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hub.health.verdict import Verdict


@dataclass(eq=False)
class VerdictGauges(Collector):
    """Read from the newest verdict when asked for."""

    verdict: Callable[[], Verdict | None]

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
