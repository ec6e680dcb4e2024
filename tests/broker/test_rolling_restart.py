"""Programs are told to stop and come again while deals are pushed: a sender comes again at worst, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hub.cli.init import make
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from tests.acceptance.running import RunningHub, running_hub, until
from tests.broker.test_full_disk import Answer, push, ready, subject

pytestmark = [pytest.mark.broker, pytest.mark.slow]
TASKS_A_DEAL = 2


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    make(tmp_path / "home", "crm-to-project")
    with running_hub(tmp_path / "home", tmp_path / "data", {}) as running:
        yield running


def secret(hub: RunningHub) -> str:
    lines = (hub.home / ".env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("CRM_SECRET="))


@dataclass
class Sender:
    """Pushes one deal after the other, each until it is taken in, as a CRM does."""

    hub: RunningHub
    first: int
    answers: list[Answer] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.secret = secret(self.hub)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        number = self.first
        while not self.stop.is_set():
            self.answers.append(push(self.hub.port, number, self.secret, patience=90.0))
            if self.answers[-1].status == 202:
                self.accepted.add(number)
                number += 1
            self.stop.wait(0.2 if self.answers[-1].status == 202 else 1.0)

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)


def restarted(hub: RunningHub, program: str) -> None:
    """Have a program end in order, and wait for the next one of it."""
    before = hub.pids()[program]
    assert before is not None
    os.kill(before, signal.SIGTERM)
    until(lambda: hub.pids()[program] not in (None, before), 60, f"{program} comes again")
    until(lambda: ready(hub), 120, f"{program} is ready")


@pytest.mark.nightly
def test_a_rolling_restart_under_load_is_an_error_to_no_sender(hub: RunningHub) -> None:
    senders = [Sender(hub, first) for first in (1000, 2000)]
    until(lambda: all(len(sender.accepted) > 2 for sender in senders), 60, "deals come in")
    for program in ("connectors", "processor", "projector"):
        seen = sum(len(sender.accepted) for sender in senders)
        restarted(hub, program)
        until(lambda seen=seen: sum(len(s.accepted) for s in senders) > seen + 2, 60, "deals still come in")  # type: ignore[misc]  # a default binds it
    for sender in senders:
        sender.end()
    answers = [answer for sender in senders for answer in sender.answers]
    assert {answer.status for answer in answers} <= {202, 503}, Counter(answers)
    assert {answer.retry_after for answer in answers if answer.status == 503} <= {"2"}
    accepted = set.union(*(sender.accepted for sender in senders))
    until(lambda: len(tasks(hub)) >= TASKS_A_DEAL * len(accepted), 120, "every deal has its tasks")
    until(lambda: hub.run("audit").returncode == 0, 120, "the audit holds")
    made = Counter(tasks(hub))
    assert made == dict.fromkeys((subject(number) for number in accepted), TASKS_A_DEAL)

    assert {push(hub.port, number, secret(hub)).status for number in range(10)} == {202}
    assert hub.run("down").returncode == 0
    assert hub.process is not None
    assert hub.process.wait(60) == 0
    ledger = Ledger(f"sqlite:///{hub.data}/ledger.sqlite")
    try:
        with ledger.reading() as conn:
            assert outbox.counts(conn)["unpublished"] == 0  # what was accepted is in the log before the broker goes
    finally:
        ledger.close()
    hub.start()


def tasks(hub: RunningHub) -> list[str]:
    """The deal of every task that was made."""
    told = hub.json("events", "tail", "--type", "work.task.created", "-n", "5000")["events"]
    return [str(each["event"]["partitionkey"]) for each in told]
