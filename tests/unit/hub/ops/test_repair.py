"""Repair on a log in memory: it finds what readers would miss, publishes what the outbox has, and gives up nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection, delete

from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.ledger.positions import halted as halts_of
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.log.partitioner import partition_of
from hub.log.sequence_gaps import halted, settled_by
from hub.log.sequences import ReadPosition, follow
from hub.ops.repair import Findings, RepairResult, apply_repair, find_gaps
from schemas.envelope import Event
from schemas.topics import PARTITIONS
from tests.events import AT, won

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass
class Stage:
    """A ledger, a log, and a relay that can lose what it sends."""

    ledger: Ledger
    log: MemoryLog

    def accept(self, *deals: str) -> None:
        self.ledger.writer.run(lambda conn: outbox.record(conn, [in_one_partition(deal) for deal in deals], "crm"))

    def relay(self, lose: bool = False) -> None:
        def work(conn: Connection) -> None:
            rows = outbox.take(conn, 1000, PARTITIONS)
            told = b',"sequence":"%d","outbox":"%s"}'
            sent = [
                (row, row.body[:-1] + told % (row.sequence, self.ledger.outbox_id.encode()), row.partition)
                for row in rows
            ]
            if not lose:
                records = [Outgoing("hub.events", row.case.encode(), body, p) for row, body, p in sent]
                self.log.writer().append(records)
            outbox.mark_published(conn, [row.id for row in rows], AT)

        self.ledger.writer.run(work)

    def find(self) -> Findings:
        with self.ledger.reading() as conn:
            return find_gaps(self.log, conn, self.ledger.outbox_id)

    def mend(self, reason: str | None = None) -> RepairResult:
        found = self.find()
        return self.ledger.writer.run(lambda conn: apply_repair(conn, found, NOW, "me", reason))

    def reads_all(self) -> list[str]:
        """The deals that a reader comes to see, in order; it stops at a gap that was not dealt with."""
        seen: list[str] = []
        for records in self.log.records.values():
            found = follow(ReadPosition(), records, settled_by(records))
            seen += [Event.from_json(record.value or b"").id for record in records[: found.whole]]
        return seen


def in_one_partition(deal: str) -> Event:
    """A won deal that lies with all the others: in a case that they share."""
    return won(deal, case="opportunity/crm/O-1", id=deal)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield Stage(ledger, MemoryLog())
    ledger.close()


def lose_two(stage: Stage) -> None:
    stage.accept("a", "b")
    stage.relay()
    stage.accept("c", "d")
    stage.relay(lose=True)
    stage.accept("e")
    stage.relay()


def test_a_whole_log_has_nothing_to_repair(stage: Stage) -> None:
    stage.accept("a", "b")
    stage.relay()
    stage.relay()
    assert stage.find() == Findings()
    assert stage.mend() == RepairResult()


def test_a_number_that_was_never_given_is_a_foreign_record_and_no_loss(stage: Stage) -> None:
    """Readers stop before it; a repair, without a word of a person, lets them go on, and they count on from the true ones."""
    stage.accept("a", "b")
    stage.relay()
    forged = in_one_partition("forged").model_copy(update={"sequence": str(10**9), "outbox": stage.ledger.outbox_id})
    stage.log.writer().append([Outgoing("hub.events", forged.case.encode(), forged.to_json())])
    assert stage.reads_all() == ["a", "b"]
    stage.accept("c")
    stage.relay()
    (gap,) = stage.find().gaps
    assert (gap.foreign, gap.missing, gap.lost, gap.error().code) == (True, 0, 0, "HUB-E2121")
    assert stage.mend() == RepairResult()
    stage.relay()
    assert stage.find() == Findings()
    assert [deal for deal in stage.reads_all() if len(deal) < 8] == ["a", "b", "forged", "c"]
    stage.accept("d")
    stage.relay(lose=True)
    stage.accept("e")
    stage.relay()
    assert [(gap.foreign, gap.missing) for gap in stage.find().gaps] == [(False, 1)], (
        "a true loss behind it is still seen"
    )


def test_what_the_outbox_has_is_published_behind_the_others_and_the_gap_is_passed(stage: Stage) -> None:
    lose_two(stage)
    assert stage.reads_all() == ["a", "b"]
    (gap,) = stage.find().gaps
    assert (gap.missing, gap.lost, gap.loss.last, gap.loss.found) == (2, 0, 2, 5)
    assert [row.subject for row in gap.rows] == ["opportunity/crm/c", "opportunity/crm/d"]
    assert stage.mend() == RepairResult(published=2)
    stage.relay()
    seen = stage.reads_all()
    assert [deal for deal in seen if len(deal) == 1] == ["a", "b", "e", "c", "d"]
    assert stage.find() == Findings()
    assert stage.mend() == RepairResult()


def test_what_is_in_no_outbox_is_given_up_only_for_a_reason(stage: Stage) -> None:
    lose_two(stage)
    stage.ledger.writer.run(lambda conn: conn.execute(delete(outbox.outbox).where(outbox.outbox.c.event_id == "c")))
    done = stage.mend()
    assert (done.published, done.accepted, len(done.left), done.left[0].lost) == (0, 0, 1, 1)
    stage.relay()
    assert stage.reads_all() == ["a", "b"]
    assert stage.mend("the backup has none either") == RepairResult(published=1, accepted=1)
    stage.relay()
    assert [deal for deal in stage.reads_all() if len(deal) == 1] == ["a", "b", "e", "d"]
    with stage.ledger.reading() as conn:
        (row,) = outbox.of_subject(conn, f"partition/hub/{partition()}")
    assert Event.from_json(row.body).data["reason"] == "the backup has none either"


def test_the_end_of_the_log_that_is_lost_is_sent_again_as_it_was(stage: Stage) -> None:
    """As a broker's host that loses power leaves it: readers then see no gap at all."""
    stage.accept("a")
    stage.relay()
    stage.accept("b", "c")
    stage.relay(lose=True)
    found = stage.find()
    assert (found.gaps, found.tails) == ([], {partition(): (1, 3)})
    assert stage.mend() == RepairResult(published=2)
    stage.relay()
    assert stage.reads_all() == ["a", "b", "c"]


def test_a_relay_that_is_just_sending_does_not_mark_what_is_to_be_sent_anew(stage: Stage) -> None:
    lose_two(stage)
    with stage.ledger.reading() as conn:
        old = [row.id for row in outbox.rows_in_range(conn, partition(), 3, 4)]
    stage.mend()
    stage.ledger.writer.run(lambda conn: outbox.mark_published(conn, old, AT))
    stage.relay()
    assert {"c", "d"} <= set(stage.reads_all())


def test_the_gap_of_another_outbox_is_nothing_that_ours_could_fill(stage: Stage) -> None:
    body = in_one_partition("x").to_json()[:-1]
    told = [Outgoing("hub.events", b"opportunity/crm/O-1", body + b',"sequence":"3","outbox":"other"}')]
    stage.log.writer().append(told)
    stage.accept("a", "b")
    stage.relay()
    (gap,) = stage.find().gaps
    assert (gap.loss.outbox, gap.missing, gap.lost) == ("other", 2, 2)
    assert len(stage.mend().left) == 1


def test_events_that_the_log_no_longer_keeps_are_published_again_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor had folded the first two of five; the log starts at the fifth."""
    stage.accept("a", "b", "c", "d", "e")
    stage.relay()
    place = orjson.dumps({"place": 2, "sequences": {stage.ledger.outbox_id: 2}})
    stage.log.writer().append([Outgoing("hub.state", b"\x00place", place, partition())])
    starts = {**dict.fromkeys(range(PARTITIONS), 0), partition(): 4}
    monkeypatch.setattr(
        MemoryLog, "starts", lambda log, topic: starts if topic == "hub.events" else dict.fromkeys(starts, 0)
    )
    (gap,) = stage.find().gaps
    assert (gap.loss.kind, gap.loss.offset, gap.missing) == ("gone", 4, 2)
    assert [row.subject for row in gap.rows] == ["opportunity/crm/c", "opportunity/crm/d"]
    assert stage.mend() == RepairResult(published=2)
    stage.relay()
    assert stage.find() == Findings()


def test_a_halt_is_open_until_it_was_dealt_with(stage: Stage) -> None:
    lose_two(stage)
    (gap,) = stage.find().gaps
    for _ in range(2):  # a worker that restarts tells it again
        stage.ledger.writer.run(lambda conn: outbox.record(conn, [halted(gap.loss, NOW)], "hub"))
    with stage.ledger.reading() as conn:
        (told,) = halts_of(conn)
    assert (told["code"], told["partition"], told["offset"]) == ("HUB-E2110", partition(), 2)
    stage.mend()
    with stage.ledger.reading() as conn:
        assert halts_of(conn) == []


def partition() -> int:
    return partition_of(b"opportunity/crm/O-1", PARTITIONS)
