"""The audit, on a log in memory: it finds what is lost, doubled in sequence, unfolded, in doubt or untold, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hub.engine.case import Case, HeldEvent, to_json
from hub.ledger import commands, outbox, parked, positions, trimmed
from hub.ledger.ledger import Ledger
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.log.partitioner import partition_of
from hub.log.sequence_gaps import repaired
from hub.log.sequences import Loss
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState
from hub.replay.audit.audit import audit
from hub.replay.audit.report import Report
from schemas.decoding import AnyEvent
from schemas.envelope import Event, derived_id, parse_time
from schemas.topics import PARTITIONS
from tests.contract.test_recall import relayed
from tests.events import AT, Decisions, command, event, won
from tests.trimming import trim

NOW: datetime = parse_time(AT) + timedelta(hours=1)


class NoRules:
    """Nothing follows from anything."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        return Decisions()


@dataclass
class Stage:
    """A ledger and a log, and the programs between them as a test wants them to have worked."""

    ledger: Ledger
    log: MemoryLog

    def accept(self, *events: Event) -> None:
        self.ledger.writer.run(lambda conn: outbox.record(conn, events, "crm"))

    def relay(self, lose: int = 0) -> None:
        """Publish all, but write all except the first `lose`."""

        def work(conn: Connection) -> None:
            rows = outbox.take(conn, 1000, PARTITIONS)
            sent = [
                Outgoing("hub.events", row.case.encode(), self._numbered(row), row.partition) for row in rows[lose:]
            ]
            self.log.writer().append(sent)
            outbox.mark_published(conn, [row.id for row in rows], AT)

        self.ledger.writer.run(work)

    def _numbered(self, row: outbox.SequencedRow) -> bytes:
        told = Event.from_json(row.body).model_copy(
            update={"sequence": str(row.sequence), "outbox": self.ledger.outbox_id}
        )
        return told.to_json()

    def fold(self) -> None:
        """As the processor does it, without any rules."""
        for (topic, partition), records in list(self.log.records.items()):
            if topic == "hub.events" and records:
                chunk = Chunk(partition, records, len(records))
                folding = fold_chunk(chunk, PartitionState(partition), NoRules(), lambda offsets: [])
                self.log.writer().append([*folding.outputs, *folding.states])

    def ask(self, state: str, tell: bool = False) -> str:
        """A command that was asked for, taken in, and is in this state; its id."""
        asked = command(won())
        self.log.writer().append([Outgoing("hub.commands", asked.case.encode(), asked.to_json())])

        def work(conn: Connection) -> None:
            commands.accept(conn, asked, asked.to_json(), AT)
            conn.execute(commands.commands.update().values(state=state))
            held = {p: positions.claim(conn, "executor", "hub.commands", p) for p in range(PARTITIONS)}
            positions.advance(conn, held, self.log.ends("hub.commands"))

        self.ledger.writer.run(work)
        if tell:
            self.accept(
                event("work.task.created", "task/pm/T-1", case=asked.case, id=derived_id("result", asked.id, "done"))
            )
        return asked.id

    def audit(self, now: datetime = NOW) -> Report:
        with self.ledger.reading() as conn:
            return audit(self.log, conn, self.ledger.outbox_id, now, self.given)

    def given(self) -> dict[int, int]:
        with self.ledger.reading() as conn:
            return outbox.sequence_ends(conn)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Stage(ledger, MemoryLog())
    ledger.close()


def found(report: Report) -> list[str]:
    return [finding.what for finding in report.findings]


def test_all_holds(stage: Stage) -> None:
    stage.accept(won("O-1"), won("O-2"))
    stage.ask("DONE", tell=True)
    stage.relay()
    stage.fold()
    report = stage.audit()
    assert report.findings == []
    assert report.counts["accepted"] == report.counts["in_the_log"] == report.counts["events_applied"] == 3
    assert (report.counts["commands"], report.counts["effects"], report.counts["on_their_way"]) == (1, 1, 0)


def test_what_is_on_its_way_is_no_finding_until_it_takes_too_long(stage: Stage) -> None:
    stage.accept(won())
    assert found(stage.audit(parse_time(AT))) == []
    assert found(stage.audit()) == ["not in the log after too long"]


def test_an_event_that_was_lost_on_its_way(stage: Stage) -> None:
    stage.accept(won("O-1"), *(event("crm.opportunity.changed", "opportunity/crm/O-1", version=str(n)) for n in (1, 2)))
    stage.relay(lose=1)
    stage.fold()
    partition = next(p for (topic, p), records in stage.log.records.items() if topic == "hub.events" and records)
    assert found(stage.audit()) == ["published, but not in the log", f"gaps in the sequence of partition {partition}"]


def test_a_sequence_given_while_the_audit_reads_is_no_finding(stage: Stage) -> None:
    """The relay goes on: what it sequences after the first look may be read from the log."""
    stage.accept(won("O-1"))
    with stage.ledger.reading() as conn:
        assert outbox.counts(conn)["accepted"] == 1
        stage.relay()
        stage.fold()
        assert found(audit(stage.log, conn, stage.ledger.outbox_id, parse_time(AT), stage.given)) == []


def test_a_sequence_that_was_never_given(stage: Stage) -> None:
    stage.accept(won())
    stage.relay()
    foreign = won("O-2").model_copy(update={"sequence": "1", "outbox": stage.ledger.outbox_id})
    stage.log.writer().append([Outgoing("hub.events", foreign.case.encode(), foreign.to_json())])
    stage.fold()
    assert found(stage.audit()) == ["partitions with sequences that the ledger never gave"]


def number(stage: Stage, told: Event, **more: str) -> int:
    """Write an event as a foreign hand does; its partition."""
    raw = told.model_copy(update=more).to_json()
    stage.log.writer().append([Outgoing("hub.events", told.case.encode(), raw)])
    return partition_of(told.case.encode(), PARTITIONS)


def test_a_huge_sequence_takes_no_memory_and_is_no_gap(stage: Stage) -> None:
    stage.accept(won())
    stage.relay()
    forged = event("crm.opportunity.changed", won().subject, version="8")
    number(stage, forged, sequence="9" * 18, outbox=stage.ledger.outbox_id)
    stage.fold()
    tracemalloc.start()
    assert found(stage.audit()) == ["partitions with sequences that the ledger never gave"]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_repair_that_claims_a_huge_gap_takes_no_memory(stage: Stage) -> None:
    stage.accept(won())
    stage.relay()
    loss = Loss("gap", partition_of(won().case.encode(), PARTITIONS), 7, stage.ledger.outbox_id, 1, 10**18)
    stage.accept(repaired(loss, NOW, published=0, accepted=0, reason=None, by=None))
    stage.relay()
    stage.fold()
    assert found(stage.audit()) == []


@pytest.mark.parametrize(
    "mark",
    [
        {},
        {"sequence": "1"},
        {"outbox": "mine"},
        {"sequence": "1", "outbox": "another"},
    ],
)
def test_an_event_that_was_acted_on_and_never_taken_in(stage: Stage, mark: dict[str, str]) -> None:
    stage.accept(won())
    stage.relay()
    if "outbox" in mark:
        mark = {**mark, "outbox": mark["outbox"].replace("mine", stage.ledger.outbox_id)}
    partition = number(stage, event("crm.opportunity.changed", won().subject, version="8", id="forged"), **mark)
    assert "events that were acted on, and that this hub never took in" not in found(stage.audit()), "not yet"
    stage.fold()
    assert found(stage.audit()) == ["events that were acted on, and that this hub never took in"]
    (one,) = stage.audit().findings
    assert (one.what, one.count) == ("events that were acted on, and that this hub never took in", 1)
    assert (one.place, one.examples) == (f"hub.events/{partition}", ("1: crm.opportunity.changed forged",))


def test_a_case_that_the_processor_left_behind(stage: Stage) -> None:
    stage.accept(won())
    stage.relay()
    report = stage.audit()
    assert found(report) == ["cases whose last event the processor has not folded"]
    assert report.findings[0].examples == (won().case,)


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ("SENDING", "calls in doubt after too long"),
        ("UNKNOWN", "calls in doubt after too long"),
        ("PARKED", "parked commands that no list shows"),
        ("DONE", "effects that no event tells of"),
        ("NEW", None),
        ("RETRY", None),
        ("DISCARDED", None),
    ],
)
def test_commands_are_done_told_or_accounted_for(stage: Stage, state: str, what: str | None) -> None:
    stage.ask(state)
    assert found(stage.audit()) == ([what] if what else [])


def test_a_command_that_was_read_and_is_gone(stage: Stage) -> None:
    stage.ask("DISCARDED")
    stage.ledger.writer.run(lambda conn: conn.execute(commands.commands.delete()).rowcount)
    assert found(stage.audit()) == ["commands that were read and are not in the ledger"]


def test_a_foreign_record_under_a_key_that_can_be_no_case_is_nobodys(stage: Stage) -> None:
    """An older processor kept a state for it; a discard, which no event of that case can ask for, never took it away."""
    stage.accept(won())
    stage.relay()
    stage.fold()
    key = b"no reference"
    stage.log.writer().append([Outgoing("hub.events", key, b"{", 0)])
    (foreign,) = [record for records in stage.log.records.values() for record in records if record.key == key]
    held = Case("no reference", "no reference", held=(HeldEvent(foreign.offset, "record/hub.events/0/0", "HUB-E6001"),))
    stage.log.writer().append([Outgoing("hub.state", key, to_json(held, foreign.offset), 0)])
    note = {
        "ref": f"record/hub.events/0/{foreign.offset}",
        "kind": "event",
        "code": "HUB-E6001",
        "seen": {},
        "body": b"{",
    }
    stage.ledger.writer.run(lambda conn: parked.park(conn, {**note, "parked_at": AT}))
    report = stage.audit()
    assert report.ok
    assert (report.counts["cases"], report.counts["events_parked"], report.counts["unreadable"]) == (1, 0, 1)


def test_what_is_trimmed_counts_as_accepted_and_must_be_in_the_log(tmp_path: Path) -> None:
    ledger, log = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite"), MemoryLog()
    stage = Stage(ledger, log)
    stage.accept(*(won(f"O-{n}", version=str(n)) for n in range(20)))
    relayed(ledger, log)
    stage.fold()
    assert trim(ledger, log) == 20
    stage.accept(won("O-20", version="20"))
    relayed(ledger, log)
    stage.log.records["hub.state", 0].clear()
    stage.fold()
    report = stage.audit()
    assert report.findings == []
    assert (report.counts["accepted"], report.counts["trimmed"], report.counts["in_the_log"]) == (21, 20, 21)
    partition = partition_of(won("O-3").case.encode(), PARTITIONS)
    there = log.records["hub.events", partition]
    lost = [each for each in there if b"opportunity/crm/O-3" not in (each.value or b"")]
    there[:] = [each._replace(offset=at) for at, each in enumerate(lost)]
    found = {finding.what: finding.examples for finding in stage.audit().findings}
    assert found["published and trimmed, but not in the log"] == (trimmed.id_hash(won("O-3", version="3").id).hex(),)
    ledger.close()


def test_an_effect_whose_event_is_trimmed_is_told(tmp_path: Path) -> None:
    ledger, log = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite"), MemoryLog()
    stage = Stage(ledger, log)
    stage.accept(won())
    stage.ask("DONE", tell=True)
    relayed(ledger, log)
    stage.fold()
    assert trim(ledger, log) == 2
    assert stage.audit().findings == []
    ledger.close()
