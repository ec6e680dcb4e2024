"""How this program and the whole hub are, for people and for monitors: states only, no addresses and no secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from hub.health.verdict import HealthState, HealthStatus
from hub.health.words import as_value
from hub.intake.poller import Poller
from hub.intake.relay import Relay
from hub.web.passage import Passage, check_host

PATHS = ("/health", "/health/connectors")
"""The whole hub's, and this program's alone."""


@dataclass(frozen=True)
class ProgramHealth:
    """Looks at the parts of the program. `working` says whether its threads and its executor are, `verdict` how the hub is."""

    relay: Relay
    pollers: Sequence[Poller]
    working: Callable[[], bool]
    passage: Passage
    verdict: Callable[[], HealthStatus | None] = lambda: None
    """None before the first look."""

    def of_program(self) -> dict[str, Any]:
        """What this program says of itself; `ok` unless it needs help or the log is away."""
        away = self.relay.away_for
        ok = self.working() and away is None
        return {
            "status": "ok" if ok else "degraded",
            "log": "ok" if away is None else "away",
            "away_seconds": round(away or 0.0, 1),
            "streams": {f"{p.stream.instance}/{p.stream.name}": p.state for p in self.pollers},
        }

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Answer one of PATHS: 200 when all is well, else 503. A system that is away does not make the hub unwell."""
        check_host(request)
        told = self.of_program()
        if request.path == "/health":
            told = self._of_hub(told, _boards(await self.passage.status()))
        return _json(told, 200 if told["status"] == HealthState.OK.word else 503)

    def _of_hub(self, program: Mapping[str, Any], boards: str) -> dict[str, Any]:
        """The verdict; a part of this program that fails, or boards that do not answer, make it no better than degraded."""
        verdict = self.verdict()
        parts = HealthState.OK if program["status"] == boards == "ok" else HealthState.DEGRADED
        worst = max(parts, verdict.state if verdict is not None else HealthState.OK)
        judged = as_value(verdict) if verdict is not None else {}
        return {**judged, "status": worst.word, "connectors": dict(program), "boards": {"status": boards}}


def _boards(status: int | None) -> str:
    return "away" if status is None else "ok" if status == 200 else "degraded"


def _json(told: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(told), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
