"""A hub with a part that stands still says so within seconds, everywhere alike, and says that all is well once it goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from hub.cli.init import make
from tests.acceptance.running import RunningHub, running_hub, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    root = tmp_path_factory.mktemp("health")
    make(root / "home", "crm-to-project")
    home = root / "home" / "hub.yaml"
    home.write_text(home.read_text("utf-8") + "health: {oldest: 5}\n", "utf-8")
    with running_hub(root / "home", root / "data", {}) as running:
        yield running


def win(hub: RunningHub, number: int) -> None:
    script = hub.home / "win_a_deal.sh"
    subprocess.run([script, str(number), "880000"], env=hub.environment, capture_output=True, check=True)


@contextlib.contextmanager
def stopped(hub: RunningHub, *programs: str) -> Iterator[None]:
    """Programs stand still, and their supervisor too, so that it does not end and replace them."""
    assert hub.process is not None
    found = [hub.pids()[program] for program in programs]
    pids = [hub.process.pid, *(pid for pid in found if pid is not None)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def health(hub: RunningHub) -> tuple[int, dict[str, Any]]:
    answer = requests.get(f"{hub.url}/health", timeout=20)
    return answer.status_code, answer.json()


def kinds(hub: RunningHub) -> set[str]:
    return {trouble["kind"] for trouble in health(hub)[1].get("troubles", ())}


def becomes_well(hub: RunningHub) -> None:
    """Wait until everybody says so."""
    try:
        until(lambda: health(hub)[0] == 200 and hub.run("status").returncode == 0, 60, "all is well")
    except AssertionError as error:
        raise AssertionError(f"{error}; {health(hub)}\n{hub.run('status').stdout}\n{hub.last_words()}") from error


def test_a_worker_that_stands_still_is_told_everywhere_by_what_waits_for_it(hub: RunningHub) -> None:
    becomes_well(hub)
    until(lambda: not any(part["waiting"] for part in health(hub)[1]["parts"].values()), 60, "nothing waits any more")
    with stopped(hub, "processor"):
        win(hub, 1)
        until(lambda: "rules" in kinds(hub), 30, "/health tells of the rules")
        status, told = health(hub)
        assert (status, told["status"]) == (503, "stalled")
        (rules,) = [trouble for trouble in told["troubles"] if trouble["kind"] == "rules"]
        assert "1 won deal is waiting" in rules["sentence"]["en"]
        assert "1 笔赢单在等" in rules["sentence"]["zh-CN"]
        ran = hub.run("status")
        assert ran.returncode == 1
        assert "The rules have stood still for" in ran.stdout
        assert "processor  not responding" in ran.stdout
        audited = hub.run("audit")
        assert audited.returncode == 1
        assert "not all is processed yet: cases behind 1  The rules have stood still" in audited.stdout.splitlines()[-1]
        checks = {check["check"]: check["level"] for check in hub.json("doctor")["checks"]}
        assert (checks["health"], checks["broker"]) == ("FAIL", "PASS")
    becomes_well(hub)


def test_boards_that_stand_still_are_told(hub: RunningHub) -> None:
    becomes_well(hub)
    with stopped(hub, "projector"):
        until(lambda: "boards" in kinds(hub), 30, "/health tells of the boards")
        assert hub.run("status").returncode == 1
    becomes_well(hub)


def test_a_broker_that_stands_still_is_told_as_such(hub: RunningHub) -> None:
    becomes_well(hub)
    with stopped(hub, "broker"):
        until(lambda: "away" in kinds(hub), 40, "/health tells of the broker")
        assert health(hub)[0] == 503
        assert hub.run("status").returncode == 5
    becomes_well(hub)
