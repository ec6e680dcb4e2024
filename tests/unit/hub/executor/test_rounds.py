"""Calls that nobody answers for, and timers, by a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Connection

from hub.coordination import new_owner
from hub.executor.housekeeper import Housekeeper
from hub.executor.instances import Instances
from hub.kit.connector import Idempotency, RateLimits
from hub.ledger import commands
from hub.runtime.clock import FixedClock
from schemas.envelope import Command, format_time
from tests.executor_bench import Bench, command

START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
FUTURE, PAST = "2999-01-01T00:00:00.000000Z", "2000-01-01T00:00:00.000000Z"
LIMITS = RateLimits(timeout=15.0, settle=2.0)


@pytest.fixture
def clock(bench: Bench) -> FixedClock:
    """The bench's."""
    bench.clock = FixedClock(START)
    return bench.clock


def rounds(bench: Bench) -> Housekeeper:
    return Housekeeper(bench.ledger, Instances(bench.connectors(), bench.people, bench.clock), bench.clock)


def send(bench: Bench, asked: Command, owner: str, deadline: str) -> None:
    """Have a command be SENDING by somebody."""

    def work(conn: Connection) -> None:
        commands.accept(conn, asked, asked.to_json(), format_time(START))
        row = commands.get(conn, asked.id)
        assert row is not None and commands.take(conn, [(row, deadline)], owner, format_time(START))

    bench.ledger.writer.run(work)


def dead_owner() -> str:
    machine, pid, _, token = new_owner().split("/")
    return f"{machine}/{pid}/1/{token}"


@pytest.mark.parametrize(
    ("once", "seconds"), [(Idempotency.KEY, 2.0), (Idempotency.LOOKUP, 40.0 + 17.0), (Idempotency.NONE, 2.0)]
)
def test_the_calls_of_a_dead_program_are_doubtful_at_once_and_looked_into_when_they_have_surely_ended(
    bench: Bench, clock: FixedClock, once: Idempotency, seconds: float
) -> None:
    bench.system("pm", class_=once, limits=LIMITS)
    send(bench, command(), dead_owner(), FUTURE)
    clock.at = START + timedelta(seconds=40)  # it may have begun only now, after a wait for its turn
    assert rounds(bench).recover() == 1
    row = bench.row(command())
    assert (row.state, row.due_at) == ("UNKNOWN", format_time(START + timedelta(seconds=seconds)))


def test_a_living_program_keeps_its_calls_until_their_deadline(bench: Bench, clock: FixedClock) -> None:
    bench.system("pm")
    send(bench, command(0), new_owner(), FUTURE)
    send(bench, command(1), new_owner(), PAST)
    assert rounds(bench).recover() == 1
    assert [bench.row(command(n)).state for n in (0, 1)] == ["SENDING", "UNKNOWN"]


def test_the_deadline_is_by_the_clock_of_the_database(bench: Bench, clock: FixedClock) -> None:
    bench.system("pm")
    send(bench, command(), new_owner(), FUTURE)
    clock.at = datetime(3000, 1, 1, tzinfo=UTC)
    assert rounds(bench).recover() == 0


def test_a_timer_is_set_without_any_system_and_fires_once(bench: Bench, clock: FixedClock) -> None:
    asked = command(type_="timer.set", instance="nobody", at="2026-11-20T12:00:00+08:00", name="remind")
    executor = bench.executor()
    bench.ask(asked)
    executor.start()
    bench.until_states("DONE", [asked])
    executor.stop()
    [done] = bench.events("hub.command.done")
    assert done.data["type"] == "timer.set"
    clock.at = datetime(2026, 11, 20, 3, 59, 59, tzinfo=UTC)
    rounds(bench).run_once()
    assert bench.events("hub.timer.fired") == []
    clock.advance(2)
    rounds(bench).run_once()
    rounds(bench).run_once()
    [fired] = bench.events("hub.timer.fired")
    assert (fired.case, fired.data, fired.causationid) == (asked.case, {"name": "remind"}, asked.id)
    assert fired.time == "2026-11-20T04:00:00.000000Z"


@pytest.mark.parametrize("at", ["", "tomorrow", "2026-11-20T12:00:00", 7, None])
def test_a_timer_without_a_time_parks(bench: Bench, at: object) -> None:
    asked = command(type_="timer.set", instance="nobody", at=at, name="remind")
    with bench.running():
        bench.ask(asked)
        bench.until_states("PARKED", [asked])
    assert bench.row(asked).code == "HUB-E4067"


def test_commands_are_counted_by_instance_and_state(bench: Bench, clock: FixedClock, tmp_path: Path) -> None:
    bench.system("counted")
    asked = command(instance="counted")
    send(bench, asked, new_owner(), FUTURE)
    look = rounds(bench)
    look.run_once()
    labels = {"instance": "counted", "state": "SENDING"}
    assert REGISTRY.get_sample_value("hub_commands", labels) == 1
    bench.ledger.writer.run(lambda conn: commands.expire_calls(conn, "3000"))
    look.run_once()
    assert REGISTRY.get_sample_value("hub_commands", labels) == 0
    assert REGISTRY.get_sample_value("hub_commands", {**labels, "state": "UNKNOWN"}) == 1
