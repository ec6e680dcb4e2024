"""Health and metrics of the web program and its boards, for monitoring."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hub.health.watch import HealthGauges
from hub.web.api import BoardsHealth
from hub.web.language import seconds_since
from hub.web.pages import LATE_AFTER_S, Pages


def router(pages: Pages) -> APIRouter:
    """The routes `/health` and `/metrics`."""
    routes = APIRouter(tags=["state"])
    boards = CollectorRegistry()
    boards.register(BoardStates(pages))
    boards.register(HealthGauges(pages.health))

    @routes.get("/health", response_model=BoardsHealth)
    def health() -> Response:
        freshness = {name: pages.fresh(name) for name in pages.boards}
        late = any(fresh.late for fresh in freshness.values())
        body = {
            "status": "late" if late else "ok",
            "boards": {name: {"as_of": fresh.as_of, "late": fresh.late} for name, fresh in freshness.items()},
        }
        return JSONResponse(body, 503 if late else 200)

    @routes.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(REGISTRY) + generate_latest(boards), media_type="text/plain; version=0.0.4")

    return routes


class BoardStates(Collector):
    """Board metrics, read from the store on demand: other programs may be the writers."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def collect(self) -> Iterator[Metric]:
        place = GaugeMetricFamily(
            "hub_board_next_offset", "The next record a board folds.", labels=["board", "partition"]
        )
        age = GaugeMetricFamily(
            "hub_board_age_seconds", "Seconds since a board reflected the whole log.", labels=["board"]
        )
        passed = CounterMetricFamily("hub_board_unreadable", "Records passed over as no events.", labels=["board"])
        for name, owner in self.pages.store.owners().items():
            for partition, at in self.pages.store.places(name).items():
                place.add_metric([name, str(partition)], at.next_offset)
            age.add_metric([name], min(seconds_since(owner.fresh_at, self.pages.clock.now()), LATE_AFTER_S * 1e6))
            passed.add_metric([name], owner.unreadable)
        tabs = GaugeMetricFamily("hub_live_tabs", "Pages that are open and live.", value=self.pages.live.tabs)
        yield from (place, age, passed, tabs)
