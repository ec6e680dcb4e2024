"""Rows of the outbox go once the log has them, and nobody who asks the ledger is told otherwise than before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, update

from hub.executor.command_events import paused, resumed
from hub.health.ledger_look import instance_state
from hub.intake import hub_events
from hub.ledger import conflicts, links, outbox, trimmed
from hub.ledger.ledger import Ledger
from hub.ledger.positions import halted as halts
from hub.log.memory_log import MemoryLog
from hub.log.sequence_gaps import halted, repaired
from hub.log.sequences import Loss
from hub.runtime.clock import FixedClock
from hub.runtime.failpoints import FailpointError
from schemas.envelope import Event, parse_time
from schemas.topics import EVENTS, PARTITIONS
from tests.contract.test_conflicts import push
from tests.contract.test_recall import ids_by_number, record, relayed
from tests.events import AT, won
from tests.pushing import Staff, deal, events
from tests.trimming import kept, note_backup, trim, trimmer

NOW = parse_time(AT)


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


def told(ledger: Ledger, *events: Event) -> int:
    return ledger.writer.run(lambda conn: outbox.record(conn, events, "crm"))


def looked(ledger: Ledger, look: Callable[[Connection], Any]) -> Any:
    with ledger.reading() as conn:
        return look(conn)


def test_a_repeat_of_what_was_trimmed_is_still_a_repeat(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(60))
    relayed(ledger, log)
    record(ledger, *range(60, 70))  # these are on their way
    assert trim(ledger, log) == 60
    assert kept(ledger) == (70, 10)
    assert looked(ledger, outbox.counts) == {"accepted": 70, "held": 0, "unpublished": 10}
    assert record(ledger, *range(80)) == 10
    held = ledger.writer.run(lambda conn: outbox.hold(conn, won("O-3", version="3"), "crm", AT))
    assert held == 0
    relayed(ledger, log)
    assert sorted(len(ids) for ids in ids_by_number(log).values()) == [1] * 80
    assert trim(ledger, log) == 20
    assert trim(ledger, log) == 0


def test_other_content_under_the_same_id_is_noted_after_trimming_too(ledger: Ledger, log: MemoryLog) -> None:
    push(ledger, deal(1, amount=1), "a")
    push(ledger, deal(2, amount=2), "b", Staff({}))  # nobody knows the owner yet
    relayed(ledger, log)
    firsts = [conflicts.digest(event) for event in events(ledger)]
    assert trim(ledger, log) == 2
    push(ledger, deal(1, amount=1), "c")
    push(ledger, deal(2, amount=2), "d")  # now somebody does
    assert looked(ledger, conflicts.counts) == {}
    ids = [push(ledger, deal(1, amount=3), "e")[0], push(ledger, deal(2, amount=2, owner="U-9"), "f")[0]]
    entries = looked(ledger, lambda conn: conflicts.about(conn, ids))
    assert [(each.event_id, each.first) for each in entries] == list(zip(ids, firsts, strict=True))
    assert looked(ledger, outbox.counts)["accepted"] == 2


def test_the_case_of_an_object_is_known_after_its_news_are_trimmed(ledger: Ledger, log: MemoryLog) -> None:
    push(ledger, deal(1), "a")
    relayed(ledger, log)
    trim(ledger, log)
    subject = "opportunity/crm/O-1"
    assert looked(ledger, lambda conn: links.known_object(conn, subject)) == (subject, False, False)
    assert looked(ledger, lambda conn: links.known_objects(conn, [subject]))[subject].case == subject


def test_what_the_log_has_had_for_less_than_the_history_stays(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(30))
    relayed(ledger, log)
    for there in log.records.values():
        there[:] = [each._replace(time=NOW.timestamp() + each.offset) for each in there]
    clock = FixedClock(NOW + timedelta(days=14) - timedelta(seconds=1))
    keep = timedelta(days=14)
    assert trim(ledger, log, clock=clock, keep=keep) == 0
    clock.advance(1)
    firsts = sum(bool(log.records[EVENTS.name, partition]) for partition in range(PARTITIONS))
    assert trim(ledger, log, clock=clock, keep=keep) == firsts
    clock.advance(1000)
    assert trim(ledger, log, clock=clock, keep=keep) == 30 - firsts


def test_with_the_embedded_broker_a_row_waits_for_a_backup_of_this_log(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(30))
    relayed(ledger, log)
    assert trim(ledger, log, needs_backup=True) == 0
    ends = log.ends(EVENTS.name)
    note_backup(ledger, MemoryLog(), ends)
    assert trim(ledger, log, needs_backup=True) == 0
    note_backup(ledger, log, {p: end - 1 for p, end in ends.items() if end})
    assert trim(ledger, log, needs_backup=True) == 30 - sum(map(bool, ends.values()))
    note_backup(ledger, log, ends)
    assert trim(ledger, log, needs_backup=True) == sum(map(bool, ends.values()))


def numbered_rows(ledger: Ledger, partition: int) -> list[int]:
    rows = looked(ledger, lambda conn: outbox.rows_in_range(conn, partition, 1, 10**9))
    return [row.sequence for row in rows]


def fullest(log: MemoryLog) -> int:
    return max(log.ends(EVENTS.name).items(), key=lambda each: each[1])[0]


def test_what_the_log_lacks_stays_and_all_behind_it(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(100))
    relayed(ledger, log)
    partition = fullest(log)
    there = log.records[EVENTS.name, partition]
    last = len(there)
    lost = there.pop(2)
    there[:] = [each._replace(offset=at) for at, each in enumerate(there)]
    assert trim(ledger, log) == 100 - last + 2
    assert numbered_rows(ledger, partition) == list(range(3, last + 1))
    assert looked(ledger, lambda conn: trimmed.floor_of(conn, partition)).stuck == 3
    there.insert(2, lost)
    there[:] = [each._replace(offset=at) for at, each in enumerate(there)]
    assert trim(ledger, log) == last - 2
    assert looked(ledger, lambda conn: trimmed.floor_of(conn, partition)).stuck is None


def test_what_lies_in_the_log_otherwise_stays(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(100))
    relayed(ledger, log)
    partition = fullest(log)
    there = log.records[EVENTS.name, partition]
    assert there[1].value is not None
    there[1] = there[1]._replace(value=there[1].value.replace(b"880000", b"990000"))
    assert trim(ledger, log) == 100 - len(there) + 1
    assert looked(ledger, lambda conn: trimmed.floor_of(conn, partition)).stuck == 2


def test_what_was_published_under_another_number_goes_there(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(100))
    relayed(ledger, log)
    partition = fullest(log)
    rows = looked(ledger, lambda conn: outbox.rows_in_range(conn, partition, 2, 3))
    ledger.writer.run(lambda conn: outbox.resequence(conn, [row.id for row in rows]))
    trim(ledger, log)
    assert kept(ledger) == (100, 2)
    relayed(ledger, log)
    trim(ledger, log)
    assert kept(ledger) == (100, 0)


def test_what_is_being_sent_again_is_not_trimmed_before_it_is_there(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(100))
    relayed(ledger, log)
    partition = fullest(log)
    ledger.writer.run(lambda conn: outbox.resend(conn, partition, 1, 3))
    trim(ledger, log)
    assert numbered_rows(ledger, partition) == list(range(2, log.ends(EVENTS.name)[partition] + 1))
    relayed(ledger, log)
    trim(ledger, log)
    assert kept(ledger) == (100, 0)


def test_a_row_that_changed_between_look_and_transaction_stays(
    ledger: Ledger, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(ledger, *range(100))
    relayed(ledger, log)
    partition, seen = fullest(log), list[str]()

    def meanwhile(name: str) -> None:
        if not seen:
            seen.append(name)
            ledger.writer.run(lambda conn: [outbox.resend(conn, each, 0, 3) for each in range(PARTITIONS)] and None)

    monkeypatch.setattr("hub.intake.trimmer.failpoint", meanwhile)
    trim(ledger, log)
    assert seen == ["trim.chosen"]
    assert numbered_rows(ledger, partition)[0] == 1
    relayed(ledger, log)
    trim(ledger, log)
    assert kept(ledger) == (100, 0)


def test_only_the_owner_of_the_job_trims(ledger: Ledger, log: MemoryLog) -> None:
    record(ledger, *range(10))
    relayed(ledger, log)
    first, second = trimmer(ledger, log), trimmer(ledger, log)
    assert ledger.writer.run(first._lease.mine)
    assert second.look() == 0
    assert first.look() == 10


def test_the_state_of_instances_and_what_was_dealt_with_stay(ledger: Ledger, log: MemoryLog) -> None:
    loss = Loss("gap", 3, 7, "o1", 2, 5)
    other = Loss("gap", 3, 9, "o1", 7, 9)
    told(
        ledger,
        paused("crm", "no", NOW),
        halted(loss, NOW),
        resumed("crm", NOW + timedelta(seconds=1)),
        repaired(loss, NOW, published=2, accepted=0, reason=None, by="me"),
        halted(other, NOW),
        paused("pm", "no", NOW),
    )
    relayed(ledger, log)
    assert trim(ledger, log) == 1
    assert [each["offset"] for each in looked(ledger, halts)] == [9]
    states = looked(ledger, lambda conn: [instance_state(conn, name) for name in ("crm", "pm")])
    assert states == ["ok", "paused"]
    told(ledger, resumed("pm", NOW), paused("crm", "again", NOW + timedelta(seconds=9)))
    relayed(ledger, log)
    assert trim(ledger, log) == 2
    states = looked(ledger, lambda conn: [instance_state(conn, name) for name in ("crm", "pm")])
    assert states == ["paused", "ok"]
    assert kept(ledger) == (8, 5)


def test_a_note_about_what_was_noted_before_is_a_new_one(ledger: Ledger, log: MemoryLog) -> None:
    def note(at: datetime) -> None:
        ledger.writer.run(
            lambda conn: hub_events.record_hub_event(conn, "hub.parked.retried", "delivery/crm/a", {}, at)
        )

    for second in range(3):
        note(NOW + timedelta(seconds=second))
        relayed(ledger, log)
        assert trim(ledger, log) == 1
    assert kept(ledger) == (3, 0)


@pytest.mark.parametrize("place", ["trim.chosen", "ledger.trimming", "ledger.before-commit", "ledger.committed"])
def test_broken_off_anywhere_it_goes_on(
    ledger: Ledger, log: MemoryLog, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    record(ledger, *range(60))
    relayed(ledger, log)
    made, passes = trimmer(ledger, log), [0]
    ledger.writer.run(made._lease.mine)

    def reach(name: str) -> None:
        passes[0] += name == place
        if name == place and passes[0] == 3:
            raise FailpointError(name)

    with monkeypatch.context() as patched:
        for module in ("hub.intake.trimmer", "hub.ledger.trimming", "hub.ledger.database"):
            patched.setattr(f"{module}.failpoint", reach)
        with pytest.raises(FailpointError):
            made.look()
    accepted, left = kept(ledger)
    assert accepted == 60 and 0 < left < 60
    assert record(ledger, *range(60)) == 0
    made.look()
    assert kept(ledger) == (60, 0)
    assert record(ledger, *range(60)) == 0


def test_a_ledger_of_an_older_backup_learns_again_what_was_trimmed(ledger: Ledger, log: MemoryLog) -> None:
    """Rows that `remember` takes in have no key beside them."""
    record(ledger, *range(40))
    relayed(ledger, log)
    trim(ledger, log)

    def older(conn: Connection) -> None:
        for sequences in (outbox.sequences,):
            conn.execute(update(sequences).values(last=1))

    ledger.writer.run(older)
    relayed(ledger, log)  # it recalls what lies behind the first of each partition
    partitions = sum(map(bool, log.ends(EVENTS.name).values()))
    assert kept(ledger) == (40, 40 - partitions)
    assert trim(ledger, log) == 0  # the floor is as it was
    assert record(ledger, *range(40)) == 0
