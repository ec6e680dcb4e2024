"""A home, a broker and workers on it, for `test_worker.py`; and what they should come to, told by folding the log beside them."""

from __future__ import annotations

import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from hub.engine.case import Case, from_json, replace, to_json
from hub.engine.parking import fold
from hub.engine.step import Output
from hub.home import Home
from hub.log.event_log import Outgoing, Record, read_to_end
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.ops.embedded_kafka import EmbeddedKafka
from hub.processor import GROUP
from hub.processor.case_expiry import with_offsets
from schemas.envelope import Event
from schemas.topics import COMMANDS, EVENTS, PARTITIONS, STATE, VIEWS
from tests.broker.program import Program, until
from tests.kafka_fixture import client_of, let_in

ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
VIEW = VIEWS["opportunity"]


@dataclass
class Outcome:
    """What workers made of some cases: commands by id, each entity's last view, each case's state."""

    commands: Counter[str] = field(default_factory=Counter)
    parked: Counter[str] = field(default_factory=Counter)
    views: dict[str, Any] = field(default_factory=dict)
    states: dict[str, bytes] = field(default_factory=dict)


class WorkerStage:
    """One home on one broker. Its tests share the log: each keeps to cases of its own."""

    def __init__(self, kafka: EmbeddedKafka, folder: Path) -> None:
        self.kafka, self.home, self.data = kafka, folder / "home", folder / "data"
        shutil.copytree(ACME, self.home)
        let_in(self.data, kafka.bootstrap)
        self.client = client_of(kafka.bootstrap)
        ensure_topics(self.client)
        self.log = KafkaLog(self.client)
        self.writer = self.log.writer()
        self.programs: list[Program] = []

    def start(self, *more: str, copy: str = "1", fail: str = "", module: str = "hub.programs.processor") -> Program:
        """A worker that has its partitions and their state; with `fail`, one that may be dead before."""
        command = [sys.executable, "-m", module, "--home", str(self.home), "--copy", copy, *more]
        settings = {"HUB_KAFKA": self.kafka.bootstrap, "HUB_DATA": str(self.data), "HUB_LANG": "en", "HUB_FAIL": fail}
        program = Program(command, settings)
        self.programs.append(program)
        until(lambda: bool(restored(program)) or not program.running, "a worker takes its partitions", 90)
        assert fail or restored(program), program.last_words()
        return program

    def close(self) -> None:
        for program in self.programs:
            program.close()
        self.writer.close()

    def append(self, events: Iterable[Event]) -> None:
        self.put([Outgoing(EVENTS.name, event.case.encode(), event.to_json()) for event in events])

    def put(self, records: Sequence[Outgoing]) -> None:
        self.writer.append(records)

    def feed(self, events: Sequence[Event], size: int = 100) -> threading.Thread:
        """Append in the background, some at a time."""

        def run() -> None:
            for at in range(0, len(events), size):
                self.append(events[at : at + size])

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def committed(self) -> dict[int, int]:
        """Partition of `hub.events` → where the group goes on; 0 where it has committed nothing."""
        consumer = Consumer({**self.client, "group.id": GROUP})
        try:
            asked = [TopicPartition(EVENTS.name, partition) for partition in range(PARTITIONS)]
            return {found.partition: max(0, found.offset) for found in consumer.committed(asked, timeout=20)}
        finally:
            consumer.close()

    def catches_up(self, seconds: float = 60.0) -> None:
        """Wait until every event is folded and committed."""
        ends = self.log.ends(EVENTS.name)
        until(lambda: self.committed() == ends, "the group has committed everything", seconds)

    def forget_positions(self) -> None:
        """Delete the group's committed offsets; it must have no member, which takes a session's time."""
        admin = AdminClient(self.client)
        until(lambda: admin.delete_consumer_groups([GROUP])[GROUP].exception() is None, "the group can be deleted")

    def records(self, topic: str) -> Iterator[Record]:
        """Everything that a topic holds now, in order within each partition."""
        for batch in read_to_end(self.log, topic, dict.fromkeys(range(PARTITIONS), 0)):
            yield from batch

    def news(self) -> list[dict[str, Any]]:
        """What travels on `hub.commands`."""
        return [orjson.loads(record.value or b"") for record in self.records(COMMANDS.name)]

    def parked(self, prefix: str) -> dict[str, dict[str, Any]]:
        """Ref → parked record, of cases whose id holds this."""
        told = [each for each in self.news() if each.get("record") == "parked" and prefix in str(each["case_id"])]
        return {each["ref"]: each for each in told}

    def outcome(self, prefix: str) -> Outcome:
        """What the topics hold of cases whose id holds `prefix`."""
        found = Outcome()
        for told in self.news():
            if "record" not in told and prefix in told["case"]:
                found.commands[told["id"]] += 1
            elif told.get("record") == "parked" and prefix in str(told["case_id"]):
                found.parked[told["ref"]] += 1
        for record in self.records(VIEW.name):
            ref = (record.key or b"").decode()
            if prefix in ref:
                found.views[ref] = orjson.loads(record.value or b"")
        for record in self.records(STATE.name):
            case, value = (record.key or b"").decode(), record.value or b""
            if prefix in case and from_json(value)[1] >= from_json(found.states.get(case, value))[1]:
                found.states[case] = value
        found.states = {case: to_json(*from_json(value)) for case, value in found.states.items()}
        return found

    def expected(self, prefix: str) -> Outcome:
        """The same, by folding each case's events beside the workers, in one go."""
        rules, found = Home.load(self.home).rules, Outcome()
        cases: dict[str, Case] = {}
        for record in self.records(EVENTS.name):
            case = (record.key or b"").decode(errors="replace")
            if prefix not in case:
                continue
            folded = fold(cases.get(case), record, rules, never_reread)
            self._note(found, folded.outputs)
            if folded.case is not None:
                cases[case] = replace(folded.case, spans=with_offsets(folded.case.spans, [record.offset]))
                found.states[case] = to_json(cases[case], record.offset)
        return found

    def _note(self, found: Outcome, outputs: Iterable[Output]) -> None:
        for output in outputs:
            sent = output.record()
            told: Mapping[str, Any] = orjson.loads(sent.value or b"") if sent else {}
            if sent and sent.topic == VIEW.name:
                found.views[sent.key.decode()] = told
            elif sent and sent.topic == COMMANDS.name and "record" not in told:
                found.commands[told["id"]] += 1
            elif told.get("record") == "parked":
                found.parked[told["ref"]] += 1

    def is_exact(self, prefix: str) -> Outcome:
        """Hold the workers to what folding gives: the same commands, last views and states, whatever happened on the way."""
        found, expected = self.outcome(prefix), self.expected(prefix)
        assert set(found.commands) == set(expected.commands)
        assert set(found.parked) == set(expected.parked)
        assert found.views == expected.views
        assert found.states == expected.states
        return found


def never_reread(_offsets: Sequence[int]) -> list[bytes]:
    """For stories in which nothing parked is taken up again."""
    raise AssertionError("nothing should be read again")


def lines(program: Program, event: str) -> list[dict[str, Any]]:
    """What a worker has logged under a name."""
    told = [orjson.loads(line) for line in list(program.lines) if line.startswith("{") and event in line]
    return [line for line in told if line.get("event") == event]


def restored(program: Program) -> list[dict[str, Any]]:
    """Each time that it took partitions over."""
    return lines(program, "worker.state-read")
