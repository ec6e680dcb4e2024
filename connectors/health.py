"""How this program is, for people and for monitors: states only, no addresses and no secrets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from connectors.passage import Passage, check_host
from connectors.poller import Poller
from connectors.relay import Relay

PATHS = ("/health", "/health/connectors")
"""The whole hub's, and this program's alone."""


@dataclass(frozen=True)
class Health:
    """Looks at the parts of the program. `working` says whether its threads and its executor are."""

    relay: Relay
    pollers: Sequence[Poller]
    working: Callable[[], bool]
    passage: Passage

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
        ok = told["status"] == "ok"
        if request.path == "/health":
            boards = await self.passage.status()
            ok = ok and boards == 200
            told = {
                "status": "ok" if ok else "degraded",
                "connectors": told,
                "boards": {"status": _boards(boards)},
            }
        return _json(told, 200 if ok else 503)


def _boards(status: int | None) -> str:
    return "away" if status is None else "ok" if status == 200 else "degraded"


def _json(told: Mapping[str, Any], status: int) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(told), content_type="application/json", headers={"Cache-Control": "no-store"}
    )
