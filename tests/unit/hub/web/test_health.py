"""What the program says of itself: well or not, stream by stream, and nothing that a stranger could use."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import cast

import aiohttp
import orjson
import pytest
from aiohttp import web

from hub.health.status import Facts, HealthLimits, HealthStatus, Queue, assess
from hub.health.words import DEAL_WON
from hub.intake.poller import Poller
from hub.intake.relay import Relay
from hub.web.bodies import Bodies
from hub.web.health import ProgramHealth
from hub.web.proxy import BoardsProxy
from schemas.envelope import parse_time
from tests.events import AT


@dataclass
class Carrying:
    """A relay, as far as health looks at it."""

    away_for: float | None = None


@dataclass
class Named:
    """A stream of an instance."""

    instance: str = "crm"
    name: str = "deals"


@dataclass
class Reading:
    """A poller, as far as health looks at it."""

    state: str
    stream: Named = field(default_factory=Named)


def health(
    away: float | None = None,
    working: bool = True,
    stream: str = "ok",
    passage: BoardsProxy | None = None,
    verdict: HealthStatus | None = None,
) -> ProgramHealth:
    pollers = [cast(Poller, Reading(stream))]
    way = passage or BoardsProxy(Path("none"), Bodies())
    return ProgramHealth(cast(Relay, Carrying(away)), pollers, lambda: working, way, lambda: verdict)


def test_all_is_well() -> None:
    told = health().of_program()
    assert told == {"status": "ok", "log": "ok", "away_seconds": 0.0, "streams": {"crm/deals": "ok"}}


@pytest.mark.parametrize(("away", "working"), [(3.04, True), (None, False)])
def test_an_outage_of_the_log_and_a_dead_part_are_told(away: float | None, working: bool) -> None:
    told = health(away, working).of_program()
    assert told["status"] == "degraded"
    assert told["away_seconds"] == (3.0 if away else 0.0)


@pytest.mark.parametrize("stream", ["away", "paused", "elsewhere"])
def test_a_system_that_is_away_does_not_make_the_hub_unwell(stream: str) -> None:
    told = health(stream=stream).of_program()
    assert (told["status"], told["streams"]) == ("ok", {"crm/deals": stream})


@pytest.mark.parametrize(("boards", "status", "said"), [(200, 200, "ok"), (503, 503, "degraded"), (None, 503, "away")])
def test_the_whole_hubs_health_holds_the_boards_too(tmp_path: Path, boards: int | None, status: int, said: str) -> None:
    async def story() -> None:
        passage = BoardsProxy(tmp_path / "boards.sock", Bodies())
        runners = [await _serve(health(passage=passage))]
        if boards is not None:
            runners.append(await _boards(tmp_path / "boards.sock", boards))
        await passage.open()
        port = runners[0].addresses[0][1]
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{port}/health") as answer:
                told = orjson.loads(await answer.read())
                assert (answer.status, told["boards"]["status"]) == (status, said)
            async with client.get(f"http://127.0.0.1:{port}/health/connectors") as answer:
                assert answer.status == 200
        await passage.close()
        for runner in runners:
            await runner.cleanup()

    asyncio.run(story())


NOW = parse_time(AT)
STALLED = assess(
    Facts(NOW, queues=(Queue("rules", "3", 1, NOW - timedelta(seconds=100), "17", {DEAL_WON: 1}),)), HealthLimits(), {}
)
AWAY = assess(Facts(NOW, instances={"pm": "paused"}), HealthLimits(), {})


@pytest.mark.parametrize(
    ("verdict", "status", "state", "said"),
    [
        (None, 200, "ok", None),
        (AWAY, 200, "ok", "All is moving, but: pm refuses our credentials"),
        (STALLED, 503, "stalled", "The rules have stood still for 1 min 40 s; 1 won deal is waiting"),
    ],
)
def test_the_verdict_decides_and_says_why(
    tmp_path: Path, verdict: HealthStatus | None, status: int, state: str, said: str | None
) -> None:
    async def story() -> None:
        passage = BoardsProxy(tmp_path / "boards.sock", Bodies())
        tested = health(passage=passage, verdict=verdict)
        runners = [await _serve(tested), await _boards(tmp_path / "boards.sock", 200)]
        await passage.open()
        port = runners[0].addresses[0][1]
        async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/health") as answer:
            told = orjson.loads(await answer.read())
        assert (answer.status, told["status"]) == (status, state)
        assert told.get("sentence", {}).get("en") == said
        await passage.close()
        for runner in runners:
            await runner.cleanup()

    asyncio.run(story())


async def _serve(tested: ProgramHealth) -> web.ServerRunner:
    runner = web.ServerRunner(web.Server(tested.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


async def _boards(socket: Path, status: int) -> web.ServerRunner:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    return runner
