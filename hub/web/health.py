"""The health endpoints of the connectors program: its own state and the whole hub's. States only, no addresses or secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from hub.health.status import HealthState, HealthStatus
from hub.health.words import status_value
from hub.intake.poller import Poller
from hub.intake.relay import Relay
from hub.web.proxy import BoardsProxy, check_host

PATHS = ("/health", "/health/connectors")
"""Of the whole hub, and of this program alone."""


@dataclass(frozen=True)
class ProgramHealth:
    """Answers health requests. `working`: whether this program's threads and executor run; `hub_status`: the hub's status."""

    relay: Relay
    pollers: Sequence[Poller]
    working: Callable[[], bool]
    boards: BoardsProxy
    hub_status: Callable[[], HealthStatus | None] = lambda: None
    """Returns None before the first check."""

    def of_program(self) -> dict[str, Any]:
        """This program's own state: `ok` if its parts run and the log is available, else `degraded`."""
        away = self.relay.away_for
        ok = self.working() and away is None
        return {
            "status": "ok" if ok else "degraded",
            "log": "ok" if away is None else "away",
            "away_seconds": round(away or 0.0, 1),
            "streams": {f"{p.stream.instance}/{p.stream.name}": p.state for p in self.pollers},
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one of PATHS: 200 for `ok`, else 503. An unavailable outside system does not make the hub unhealthy."""
        check_host(request)
        body = self.of_program()
        if request.path == "/health":
            body = self._of_hub(body, _boards(await self.boards.status()))
        return _json(body, 200 if body["status"] == HealthState.OK.label else 503)

    def _of_hub(self, program: Mapping[str, Any], boards: str) -> dict[str, Any]:
        """The hub's status; at best `degraded` when a part of this program fails or the boards do not answer."""
        status = self.hub_status()
        parts = HealthState.OK if program["status"] == boards == "ok" else HealthState.DEGRADED
        worst = max(parts, status.state if status is not None else HealthState.OK)
        value = status_value(status) if status is not None else {}
        return {**value, "status": worst.label, "connectors": dict(program), "boards": {"status": boards}}


def _boards(status: int | None) -> str:
    return "away" if status is None else "ok" if status == 200 else "degraded"


def _json(body: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(body), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
