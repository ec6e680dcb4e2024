"""No content of the log ends a program: what readers make of records that nobody of ours wrote.

`HUB_FUZZ=100000` tries as many of each; without it, a sample. A reader may say what is missing (a leap of sequences is a loss),
and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.engine.step import ParkedEvent, SettledEvent
from hub.executor import command_consumer as executor_records
from hub.executor.command_consumer import CommandConsumer
from hub.executor.ledger_catch_up import remember
from hub.kit.records import read_event
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.log.event_log import Outgoing, Record
from hub.log.memory_log import MemoryLog
from hub.log.outbox_in_log import latest_outbox, records_since, tails
from hub.log.sequence_gaps import repaired, settled_by
from hub.log.sequences import Loss, ReadPosition, follow
from hub.ops.repair import find_gaps
from hub.projector import registry
from hub.projector.folding import FoldPosition as BoardPlace
from hub.projector.folding import fold, keys_of, take, to_fold
from hub.replay.audit.audit import audit
from hub.runtime.clock import SystemClock
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS, STATE, VIEWS
from tests.board_events import Deal
from tests.events import event, won
from tests.executor_bench import Bench, command
from tests.fuzzing import inputs
from tests.hostile_records import records

COUNT = inputs(1500)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
CASE = won().case
LOSS = Loss("gap", 0, 7, "o1", 1, 5)
TIMER = {"type": "timer.set", "arguments": {"at": "2026-11-20T02:00:00Z"}, "id": "7"}
SOUND: list[dict[str, Any]] = [
    orjson.loads(each.to_json())
    for each in (
        *Deal(1).story(),
        won(),
        event("hub.timer.fired", CASE, data={"name": "x"}, causationid="c-1"),
        event("hub.command.done", CASE, data=TIMER, causationid="c-1"),
        event("hub.command.failed", CASE, data={"type": "task.create", "reason": "no"}, causationid="c-1"),
        event("hub.parked.edited", CASE, data={"parked": "e", "event": orjson.loads(won().to_json())}),
        event("hub.parked.retried", CASE, data={"parked": "e"}),
        repaired(LOSS, NOW, published=0, accepted=1, reason="told", by="me"),
    )
]  # fmt: skip
ASKED: list[dict[str, Any]] = [
    orjson.loads(command().to_json()),
    *(
        orjson.loads((output.record() or Outgoing("", b"", b"{}")).value or b"{}")
        for output in (
            ParkedEvent(
                "event/e", CASE, CASE, "HUB-E6005", {"reason": "x"}, "rules/a.yaml:3:1", "won-deal", won().to_json()
            ),
            SettledEvent("event/e", CASE, "done"),
        )
    ),
]
STATES: list[dict[str, Any]] = [
    {
        "offset": 3,
        "case": {"id": CASE, "entities": {CASE: {"ref": CASE, "data": {}, "entered": {}}}, "held": [{"offset": 2}]},
    },
    {"place": 3, "sequences": {"o1": 2}},
]


VIEWED: list[dict[str, Any]] = [{"event": "e", "case": CASE, "data": {}, "version": "1"}]


def hostile(seed: int, sound: list[dict[str, Any]] = SOUND, count: int = COUNT) -> list[Record]:
    made = records(seed, count, sound, CASE)
    return [Record(EVENTS.name, 0, offset, key, value, 1.0) for offset, (key, value) in enumerate(made)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def bench(ledger: Ledger) -> Bench:
    return Bench(ledger)


@pytest.mark.parametrize("name", registry.projections())
def test_no_board_ends_of_what_it_reads(name: str) -> None:
    """Taken one by one: a leap is a loss, and then that record is passed as after a repair."""
    projection, places, rows = registry.projections()[name], {0: BoardPlace()}, dict[str, Any]()
    for record in hostile(1):
        taken = take([record], places, name, read_event)
        if taken.loss is not None:
            assert taken.loss.code == "HUB-E5101"
            taken = take([record], places, name, read_event, {0: {record.offset: True}})
        assert taken.loss is None
        places = taken.places
        events = to_fold(taken.found)
        known = {key: rows[key] for key in keys_of(projection, events) if key in rows}
        for key, change in fold(projection, events, known).items():
            rows.pop(key, None) if change.after is None else rows.update({key: change.after})
    assert places[0].next_offset == COUNT


def test_no_reader_of_sequences_ends_of_what_it_reads() -> None:
    place, read = ReadPosition(), hostile(2)
    for record in read:
        followed = follow(place, [record])
        if followed.loss is not None:
            followed = follow(place, [record], {record.offset: True})
        assert followed.whole == 1
        place = followed.place
    assert all(isinstance(offset, int) for offset in settled_by(read))


def a_log(seed: int, count: int = COUNT, outbox_id: str = "o1") -> MemoryLog:
    """Hostile records in every topic that is read."""
    log = MemoryLog()
    topics = [(EVENTS.name, SOUND), (COMMANDS.name, ASKED), (STATE.name, STATES)]
    topics += [(topic.name, VIEWED) for topic in list(VIEWS.values())[:3]]
    for topic, sound in topics:
        made = enumerate(records(seed, count, sound, CASE, outbox_id))
        log.records[topic, 3] = [Record(topic, 3, offset, key, value, 1.0) for offset, (key, value) in made]
    return log


def test_no_audit_and_no_repair_ends_of_what_lies_in_the_log(ledger: Ledger) -> None:
    for seed in range(3):
        log = a_log(seed, COUNT // 3, ledger.outbox_id)
        with ledger.reading() as conn:
            report = audit(log, conn, ledger.outbox_id, NOW, lambda: {})
            assert report.as_value()["findings"]
            assert orjson.dumps(report.as_value())
            for gap in find_gaps(log, conn, ledger.outbox_id).gaps:
                assert gap.error().message("en")
                assert gap.as_value()


def test_a_ledger_that_learns_from_the_log_passes_over_what_is_nobodys(ledger: Ledger) -> None:
    log = a_log(4, COUNT, ledger.outbox_id)
    assert latest_outbox(log) is not None
    ends = tails(log, ledger.outbox_id, {})
    for found in records_since(log, ledger.outbox_id, {3: 0}, ends):
        for record in found:
            ledger.writer.run(partial(remember, records=[record], at="2026-11-30T00:00:00.000000Z"))
    with ledger.reading() as conn:
        assert outbox.counts(conn)["accepted"] > 0


def test_what_is_asked_for_is_taken_in_or_parked(bench: Bench) -> None:
    for key, value in records(5, COUNT, ASKED + SOUND[:2], CASE):
        assert executor_records.parse_message(Record(COMMANDS.name, 0, 0, key, value, 1.0)) is not None
    made = list(records(6, min(COUNT, 3000), ASKED + SOUND[:2], CASE))
    bench.log.writer().append([Outgoing(COMMANDS.name, key or b"x", value or b"", 0) for key, value in made])
    reader = CommandConsumer(bench.ledger, bench.log, SystemClock(), "me", lambda: None)
    for _ in range(len(made) // 500 + 1):
        assert reader.turn()
    bench.ask(command(99))
    reader.turn()
    assert command(99).id in bench.rows()


def test_an_event_is_read_or_refused_as_one() -> None:
    for record in hostile(7):
        try:
            Event.from_json(record.value or b"")
        except ValueError:
            continue
