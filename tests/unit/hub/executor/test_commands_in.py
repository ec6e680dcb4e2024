"""What is taken from `hub.commands` into the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest
from sqlalchemy import Connection

from hub.engine.case import Entity
from hub.engine.step import EmitCommand, EmitEvent, Output, ParkedEvent, SettledEvent, View, derived_event
from hub.errors import RetryableError
from hub.executor.command_consumer import CommandConsumer
from hub.ledger import commands, leases, parked, positions
from hub.ledger.database import AnyRow
from hub.runtime.clock import SystemClock
from schemas.envelope import Command, Event
from schemas.topics import COMMANDS
from tests.executor_bench import Bench, command

CASE = "opportunity/crm/O-1"
WON = Event(
    id="event-1",
    source="/connectors/crm",
    type="crm.opportunity.won",
    subject=CASE,
    time="2026-11-20T02:00:00.000000Z",
    recordedtime="2026-11-20T02:00:00.000000Z",
    dataschema="urn:hub:crm.opportunity.won:1",
    partitionkey=CASE,
    correlationid=CASE,
)
PARKED = ParkedEvent(
    "event/event-1", CASE, CASE, "HUB-E6005", {"reason": "x"}, "rules/a.yaml:3:1", "won-deal", WON.to_json()
)


def intake(bench: Bench, owner: str = "me") -> CommandConsumer:
    return CommandConsumer(bench.ledger, bench.log, SystemClock(), owner, lambda: None)


def put(bench: Bench, *outputs: Output) -> None:
    """Send what a step said, as the worker does."""
    records = [record for record in (output.record() for output in outputs) if record is not None]
    bench.log.writer().append(records)


def opened(bench: Bench) -> list[AnyRow]:
    with bench.ledger.reading() as conn:
        return list(parked.open_entries(conn))


def place(bench: Bench) -> int:
    with bench.ledger.reading() as conn:
        return sum(positions.of_reader(conn, "executor", COMMANDS.name).values())


def test_everything_that_a_step_says_for_the_ledger_is_understood(bench: Bench) -> None:
    completed = derived_event(WON, "work.project.completed", "project/pm/7", "completed-7", {"name": "交付"})
    put(bench, EmitCommand(command()), EmitEvent(completed), PARKED, View(Entity(ref=CASE), CASE, "event-1"))
    intake(bench).turn()
    assert list(bench.rows()) == [command().id]
    assert {event.type for event in bench.events()} == {"work.task.requested", "work.project.completed"}
    [row] = opened(bench)
    assert (row.ref, row.kind, row.code, row.place) == ("event/event-1", "event", "HUB-E6005", "rules/a.yaml:3:1")
    assert row.body == WON.to_json()
    put(bench, SettledEvent("event/event-1", CASE, "done"))
    intake(bench, "me").turn()
    assert opened(bench) == []


def test_a_derived_event_enters_once_with_our_time_of_recording(bench: Bench) -> None:
    completed = derived_event(WON, "work.project.completed", "project/pm/7", "completed-7", {})
    put(bench, EmitEvent(completed), EmitEvent(completed))
    intake(bench).turn()
    [event] = bench.events()
    assert event.id == "completed-7"
    assert event.time == WON.time
    assert event.recordedtime > WON.recordedtime


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"record": "what"}',
        b'{"record": "parked", "ref": "event/1", "code": "HUB-E6005", "body": "no base64!"}',
        b'{"record": "settled", "ref": "event/1", "state": "open"}',
        orjson.dumps({**command().model_dump(), "case": "no reference"}),
        b"[" * 100_000,
    ],
)
def test_bytes_that_say_nothing_are_parked_and_what_follows_goes_on(bench: Bench, value: bytes) -> None:
    bench.put((CASE, value))
    bench.ask(command())
    intake(bench).turn()
    [row] = opened(bench)
    assert (row.kind, row.code, row.body) == ("command", "HUB-E4060", value)
    assert row.ref.startswith(f"record/{COMMANDS.name}/")
    assert list(bench.rows()) == [command().id]


def test_what_was_taken_in_is_not_read_again(bench: Bench) -> None:
    bench.ask(command(0))
    intake(bench).turn()
    bench.ask(command(1))
    again = intake(bench)
    again.turn()
    assert place(bench) == 2
    assert len(bench.events("work.task.requested")) == 2


def test_one_program_reads_and_the_other_stands_by_until_the_job_is_free(bench: Bench) -> None:
    first, second = intake(bench, "first"), intake(bench, "second")
    assert first.turn()
    assert not second.turn()
    first.release()
    assert second.turn()


def test_one_that_lost_the_job_without_knowing_writes_nothing(bench: Bench) -> None:
    stale, new = intake(bench, "stale"), intake(bench, "new")
    stale.turn()
    bench.ledger.writer.run(lambda conn: leases.release(conn, "commands", "stale"))
    bench.ask(command(0))
    new.turn()
    bench.ask(command(1))
    assert not stale.turn()  # it still thinks that it holds the job, and is shut out at the position
    assert place(bench) == 1
    assert list(bench.rows()) == [command(0).id]
    new.turn()
    assert list(bench.rows()) == [command(0).id, command(1).id]


def test_a_batch_that_could_not_be_committed_is_read_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = intake(bench)
    bench.ask(command())
    away = RetryableError("HUB-E5002", url="ledger", reason="away")
    with monkeypatch.context() as patched:
        patched.setattr(positions, "advance", _raising(away))
        with pytest.raises(RetryableError):
            reader.turn()
    assert bench.rows() == {}
    reader.turn()
    assert list(bench.rows()) == [command().id]


def test_one_record_that_the_database_will_not_have_takes_no_other_with_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = commands.accept_all

    def accept_all(
        conn: Connection, asked: Sequence[tuple[Command, bytes]], at: str, doubt: str | None = None
    ) -> frozenset[str]:
        if any(one.position == 1 for one, _ in asked):
            raise ValueError("a NUL in a text")
        return real(conn, asked, at, doubt)

    monkeypatch.setattr(commands, "accept_all", accept_all)
    bench.ask(command(0), command(1), command(2))
    intake(bench).turn()
    assert list(bench.rows()) == [command(0).id, command(2).id]
    [row] = opened(bench)
    assert row.body == command(1).to_json()


def _raising(error: Exception) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail
