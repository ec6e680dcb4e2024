"""A full disk: what cannot be kept is refused with 503, what was accepted stays, and all goes on by itself once there is room."""

from __future__ import annotations

import http.client
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from hub.cli.init import make
from tests.acceptance.running import RunningHub, running_hub
from tests.broker.connectors_stage import Stage, check_log
from tests.broker.program import until
from tests.pushing import SECRET, deal, signed
from tests.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.broker
PAD = 60_000
"""A hundred pushes of this length are more than the room that SQLite keeps in its own files."""


@dataclass(frozen=True)
class Answer:
    """What a sender hears; status 0: nothing."""

    status: int
    retry_after: str | None = None
    code: str | None = None


def push(port: int, number: int, secret: str = SECRET, pad: int = 0, patience: float = 20.0) -> Answer:
    """Push a won deal, as long as is wanted."""
    body = deal(number, title="x" * pad if pad else "网关项目")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("POST", "/webhooks/crm", body, signed(body, f"msg-{number}", secret))
        answer = connection.getresponse()
        told = orjson.loads(answer.read())
        return Answer(answer.status, answer.getheader("Retry-After"), told.get("code"))
    except (OSError, http.client.HTTPException):
        return Answer(0)
    finally:
        connection.close()


def subject(number: int) -> str:
    return f"opportunity/crm/O-{number}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as mounted:
        yield mounted


def test_a_full_ledger_refuses_with_503_and_loses_nothing_it_accepted(kafka: str, disk: SmallDisk) -> None:
    stage = Stage.anew(disk.path / "home", kafka)
    try:
        program = stage.start()
        accepted: set[int] = set()
        for turn in range(4):
            # Not always to the last byte: then it is a write in the middle of a transaction that fails.
            disk.fill(leave=(0, 20_000, 60_000, 150_000)[turn])
            numbers, answers, refused = range(turn * 1000, turn * 1000), list[Answer](), list[Answer]()
            # How many still find room depends on how many share a commit.
            while not refused and len(numbers) < 1000:
                more = range(numbers.stop, numbers.stop + 100)
                with ThreadPoolExecutor(4) as senders:
                    answers += senders.map(lambda n: push(stage.port, n, pad=PAD), more)
                numbers = range(numbers.start, more.stop)
                assert {answer.status for answer in answers} <= {202, 503}, program.last_words()
                refused = [answer for answer in answers if answer.status == 503]
            assert refused
            assert {(answer.retry_after, answer.code) for answer in refused} == {("2", "HUB-E7006")}
            accepted |= {n for n, answer in zip(numbers, answers, strict=True) if answer.status == 202}
            disk.free()
            until(lambda: push(stage.port, 10_000).status == 202, "it takes pushes again", 15)
            again = [push(stage.port, n, pad=PAD).status for n in numbers]
            assert set(again) == {202}
            accepted |= set(numbers)
        stage.drained()
        assert check_log(stage.log()) == {subject(n) for n in accepted | {10_000}}
        assert program.running
        whole = sqlite3.connect(stage.data / "ledger.sqlite").execute("PRAGMA integrity_check").fetchall()
        assert whole == [("ok",)]
    finally:
        stage.stop_all()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[RunningHub, SmallDisk]]:
    """A whole hub, with all its data on one disk."""
    make(tmp_path / "home", "crm-to-project")
    with (
        small_disk(tmp_path / "disk", 700) as disk,
        running_hub(tmp_path / "home", disk.path / "data", {}) as running,
    ):
        yield running, disk


@pytest.mark.slow
def test_a_hub_whose_only_disk_is_full_recovers_by_itself(hub: tuple[RunningHub, SmallDisk]) -> None:
    """Ledger, boards, the broker's log, the run folder and the logs: all of it is full at once."""
    running, disk = hub
    env = (running.home / ".env").read_text()
    secret = next(line.partition("=")[2] for line in env.splitlines() if line.startswith("CRM_SECRET="))
    accepted = {n for n in range(5) if push(running.port, n, secret).status == 202}
    assert len(accepted) == 5
    disk.fill()
    answers = {n: push(running.port, n, secret, pad=PAD) for n in range(100, 160)}
    disk.fill()
    answers |= {n: push(running.port, n, secret, pad=PAD) for n in range(200, 230)}
    assert {answer.status for answer in answers.values()} <= {0, 202, 503}, answers
    assert [answer for answer in answers.values() if answer.status == 503]
    for program in ("processor", "projector"):  # a crash on a full disk, too
        running.kill(program)
    until(lambda: None not in running.pids().values() or running.pids()["broker"] is None, "they come again", 60)
    accepted |= {n for n, answer in answers.items() if answer.status == 202}
    disk.free()
    until(lambda: push(running.port, 300, secret).status == 202, "it takes pushes again", 60)
    accepted.add(300)
    until(lambda: bool(running.json("status")["running"]) and ready(running), "all programs are ready", 120)
    until(lambda: running.run("audit").returncode == 0, "the audit holds", 120)
    told = running.json("events", "tail", "--type", "crm.opportunity.won", "-n", "500")["events"]
    assert {each["event"]["subject"] for each in told} >= {subject(n) for n in accepted}
    tasks = running.json("events", "tail", "--type", "work.task.created", "-n", "1000")["events"]
    cases = {each["event"]["partitionkey"] for each in tasks}
    assert cases >= {subject(n) for n in accepted}


def ready(hub: RunningHub) -> bool:
    return {program["state"] for program in hub.json("status")["programs"].values()} == {"ready"}
