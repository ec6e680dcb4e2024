"""What is done is looked up in its system: what is missing there is told, and nobody is asked in vain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from hub.errors import RetryableError
from hub.executor.instances import Instances
from hub.kit.connector import Effect, Idempotency, RateLimits
from hub.ledger.ledger import Ledger
from hub.ops.reconciling import MAX_CONSECUTIVE_FAILURES, InstanceReport, reconcile
from hub.runtime.clock import FixedClock, SystemClock
from schemas.envelope import Command, format_time, promise
from tests.executor_bench import Bench, FakeSystem, command

LONG_AGO = "2020-01-01T00:00:00Z"
QUICK = RateLimits(10_000, 8, timeout=5, settle=0.05)


@dataclass
class Noting(FakeSystem):
    """Keeps what was asked for whole."""

    asked_for: list[Command] = field(default_factory=list)

    def find(self, command: Command) -> Effect | None:
        self.asked_for.append(command)
        return super().find(command)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(Ledger(f"sqlite:///{tmp_path}/ledger.sqlite"))
    yield made
    made.ledger.close()


def done(bench: Bench, *asked: Command) -> None:
    bench.ask(*asked)
    with bench.running():
        bench.until_states("DONE", asked)


def tasks(many: int, first: int = 0) -> list[Command]:
    return [command(0, f"opportunity/crm/O-{number}") for number in range(first, first + many)]


def ask(bench: Bench, *, hours: float = 1.0, since: str = LONG_AGO) -> dict[str, InstanceReport]:
    clock = FixedClock(SystemClock().now() + timedelta(hours=hours))
    lanes = Instances(bench.connectors(), bench.people, clock)
    return {told.instance: told for told in reconcile(bench.ledger, lanes, since, clock)}


def lose(system: FakeSystem, *lost: Command) -> None:
    for each in lost:
        del system.effects[each.id]


def test_what_a_system_has_lost_is_told_with_its_case_and_its_name_there(bench: Bench) -> None:
    pm, asked = bench.system("pm", class_=Idempotency.LOOKUP, limits=QUICK), tasks(5)
    done(bench, *asked)
    lose(pm, asked[1], asked[3])
    told = ask(bench)["pm"]
    assert told.found == 3
    assert [gone["case"] for gone in told.missing] == [asked[1].case, asked[3].case]
    assert [gone["id"] for gone in told.missing] == [f"T-{asked[1].id}", f"T-{asked[3].id}"]
    assert len(pm.sent) == 5  # nothing was sent again


def test_a_command_is_looked_up_with_its_promises_kept_and_its_persons_as_accounts(bench: Bench) -> None:
    pm = bench.systems["pm"] = Noting(class_=Idempotency.LOOKUP, limits=QUICK)
    project = command(0, type_="project.create", name="x")
    task = command(1, title="t", project=promise(project.id), assignee="person/wang.fang")
    done(bench, project, task)
    assert ask(bench)["pm"].found == 2
    assert pm.asked_for[1].arguments["project"] == f"T-{project.id}"
    assert pm.asked_for[1].arguments["assignee"] == "wang.fang@pm"


def test_a_system_that_cannot_be_asked_is_not_asked(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.KEY, limits=QUICK)
    done(bench, *tasks(2))
    assert ask(bench)["pm"].unasked == 2
    assert pm.looked == []


def test_what_was_done_a_moment_ago_may_not_be_found_yet(bench: Bench) -> None:
    bench.system("pm", class_=Idempotency.LOOKUP, limits=RateLimits(10_000, 8, settle=60.0))
    done(bench, *tasks(2))
    assert ask(bench, hours=0.0)["pm"].young == 2


def test_a_system_that_is_away_is_left_alone_soon(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.LOOKUP, limits=QUICK)
    done(bench, *tasks(10))
    pm.finding = [RetryableError("HUB-E4001", instance="pm", url="http://pm", reason="refused")] * 10
    told = ask(bench)["pm"]
    assert (told.unanswered, told.found, len(pm.looked)) == (10, 0, MAX_CONSECUTIVE_FAILURES)
    assert told.error is not None
    assert told.error["code"] == "HUB-E4001"


def test_a_connector_that_breaks_on_a_look_costs_that_answer_only(bench: Bench) -> None:
    pm, asked = bench.system("pm", class_=Idempotency.LOOKUP, limits=QUICK), tasks(2 * MAX_CONSECUTIVE_FAILURES)
    done(bench, *asked)
    pm.finding = [ValueError("secret")] * (MAX_CONSECUTIVE_FAILURES + 1)
    told = ask(bench)["pm"]
    assert (told.unanswered, told.found) == (MAX_CONSECUTIVE_FAILURES + 1, MAX_CONSECUTIVE_FAILURES - 1)
    assert told.error is not None
    assert told.error["code"] == "HUB-E4066"
    assert "secret" not in str(told.as_value())


def test_only_what_was_done_since_is_asked_for(bench: Bench) -> None:
    pm = bench.system("pm", class_=Idempotency.LOOKUP, limits=QUICK)
    done(bench, *tasks(3))
    since = format_time(SystemClock().now())
    done(bench, *tasks(2, first=10))
    assert ask(bench, since=since)["pm"].found == 2
    assert len(pm.looked) == 2


def test_nothing_done_is_nothing_to_ask(bench: Bench) -> None:
    bench.system("pm", class_=Idempotency.LOOKUP)
    assert ask(bench) == {}
