"""What the outbox holds reaches the log: all of it, numbered without a gap, in order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, update

from hub.coordination import Lease
from hub.errors import FatalError, RejectedError, RetryableError
from hub.intake.relay import MAX_BATCH_PAUSE_S, MIN_BATCH_PAUSE_S, POLL_INTERVAL_S, Relay, batch_pause
from hub.ledger import outbox
from hub.ledger.leases import leases
from hub.ledger.ledger import Ledger
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog, MemoryWriter
from hub.runtime.clock import FixedClock, SystemClock
from schemas.envelope import Event
from tests.acceptance.running import until
from tests.background import background
from tests.events import won


def record(ledger: Ledger, *numbers: int) -> None:
    events = [won(f"O-{number}", version=str(number)) for number in numbers]
    ledger.writer.run(lambda conn: outbox.record(conn, events, "crm"))


def logged(log: MemoryLog) -> list[Event]:
    records = [record for (topic, _), there in log.records.items() if topic == "hub.events" for record in there]
    return [Event.from_json(record.value or b"") for record in records]


def sequences(log: MemoryLog) -> dict[int, list[int]]:
    """Partition → sequences, in log order."""
    return {
        partition: [int(Event.from_json(record.value or b"").sequence or 0) for record in there]
        for (topic, partition), there in log.records.items()
        if topic == "hub.events" and there
    }


def is_gapless(numbers: Sequence[int]) -> bool:
    """As a reader sees it: each number is the next one, or was there before."""
    last = 0
    for number in numbers:
        if number > last + 1:
            return False
        last = max(last, number)
    return True


def test_all_is_relayed_in_order_without_a_gap(ledger: Ledger) -> None:
    log = MemoryLog()
    with background(Relay(ledger, log, SystemClock())) as relay:
        for number in range(40):
            record(ledger, number)
        assert relay.drained(10)
    assert {event.subject for event in logged(log)} == {f"opportunity/crm/O-{n}" for n in range(40)}
    for numbers in sequences(log).values():
        assert numbers == list(range(1, len(numbers) + 1))
    assert {event.outbox for event in logged(log)} == {ledger.outbox_id}
    with ledger.reading() as conn:
        assert outbox.counts(conn) == {"accepted": 40, "held": 0, "unpublished": 0}


def test_the_record_is_keyed_by_its_case_and_lies_in_its_partition(ledger: Ledger) -> None:
    log = MemoryLog()
    with background(Relay(ledger, log, SystemClock())) as relay:
        record(ledger, 1, 2, 3)
        assert relay.drained(10)
    by_key = {record.key: record.partition for there in log.records.values() for record in there}
    other = MemoryLog()
    other.writer().append([Outgoing("t", key or b"", b"") for key in by_key])
    assert by_key == {record.key: record.partition for there in other.records.values() for record in there}


def test_what_a_crash_left_unacknowledged_is_sent_again_before_anything_new(ledger: Ledger) -> None:
    record(ledger, 1, 2, 3)
    before = ledger.writer.run(lambda conn: outbox.take(conn, 500, 12))
    record(ledger, 4)
    log = MemoryLog()
    with background(Relay(ledger, log, SystemClock())) as relay:
        assert relay.drained(10)
    there = {(r.partition, Event.from_json(r.value or b"").sequence) for rs in log.records.values() for r in rs}
    assert {(row.partition, str(row.sequence)) for row in before} < there
    assert all(is_gapless(numbers) for numbers in sequences(log).values())


class Holding(MemoryLog):
    """A log that acknowledges nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()

    def writer(self) -> MemoryWriter:
        return _Holding(self)


class _Holding(MemoryWriter):
    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        log = self.log
        assert isinstance(log, Holding)
        log.asked.set()
        assert log.let.wait(timeout)
        super().append(records)


def test_what_is_acknowledged_while_somebody_asks_is_not_drained_before_it_is_marked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends once all is drained: what is not marked then would be sent a second time by the next."""
    log, clock, reading = Holding(), FixedClock(datetime(2026, 10, 12, tzinfo=UTC)), Ledger.reading
    with background(Relay(ledger, log, clock)) as relay:
        record(ledger, 1)
        assert log.asked.wait(10)

        def acknowledged_first(self: Ledger) -> contextlib.AbstractContextManager[Connection]:
            if threading.current_thread() is threading.main_thread():
                log.let.set()
                until(lambda: bool(relay._sent), 10, "the log has acknowledged it")
            return reading(self)

        monkeypatch.setattr(Ledger, "reading", acknowledged_first)
        assert not relay.drained(0.2)
        monkeypatch.undo()
        clock.advance(2 * POLL_INTERVAL_S)
        assert relay.drained(10)
    with ledger.reading() as conn:
        assert outbox.counts(conn)["unpublished"] == 0


class Failing(MemoryLog):
    """A log that is away for some appends, after it took part of them."""

    failures = 3
    opened = 0

    def writer(self) -> MemoryWriter:
        self.opened += 1
        return _Failing(self)


class _Failing(MemoryWriter):
    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        log = self.log
        assert isinstance(log, Failing)
        if log.failures:
            log.failures -= 1
            super().append(records[:1])
            raise RetryableError("HUB-E2104", reason="away")
        super().append(records)


def test_a_log_that_is_away_gets_everything_once_it_is_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.intake.relay.RETRY_DELAY_S", 0.01)
    log = Failing()
    record(ledger, *range(20))
    with background(Relay(ledger, log, SystemClock())) as relay:
        assert relay.drained(10)
        assert relay.away_for is None
    assert len({event.id for event in logged(log)}) == 20
    assert all(is_gapless(numbers) for numbers in sequences(log).values())
    assert log.opened == 4  # a writer that gave up is never used again


def test_a_record_that_the_log_refuses_ends_the_program(ledger: Ledger) -> None:
    class Refusing(MemoryLog):
        def writer(self) -> MemoryWriter:
            return _Refusing(self)

    class _Refusing(MemoryWriter):
        def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
            raise RejectedError("HUB-E2102", reason="too large")

    record(ledger, 1)
    with pytest.raises(FatalError):
        Relay(ledger, Refusing(), SystemClock()).run()


def test_one_relay_has_the_job_and_another_takes_over_when_it_sleeps(ledger: Ledger) -> None:
    clock = FixedClock(SystemClock().now())
    first, second = (Lease("relay", clock) for _ in range(2))
    assert ledger.writer.run(first.mine)
    assert not ledger.writer.run(second.mine)
    ledger.writer.run(lambda conn: conn.execute(update(leases).values(expires=0.0)))  # as when it has slept for long
    assert ledger.writer.run(second.mine)
    assert not ledger.writer.run(first.mine)


def test_two_relays_lose_nothing_and_leave_no_gap(ledger: Ledger) -> None:
    log = MemoryLog()
    clock = SystemClock()
    relays = [Relay(ledger, log, clock, Lease("relay", clock, seconds=0.05)) for _ in range(2)]
    with background(relays[0]), background(relays[1]):
        for number in range(60):
            record(ledger, number)
        assert relays[0].drained(20)
    assert len({event.id for event in logged(log)}) == 60
    assert all(is_gapless(numbers) for numbers in sequences(log).values())


def test_the_more_a_round_carried_the_longer_the_next_one_gathers_up_to_a_limit() -> None:
    waits = [batch_pause(carried) for carried in (0, 5, 50, 500)]
    assert waits[0] == MIN_BATCH_PAUSE_S
    assert sorted(set(waits)) == waits
    assert waits[-1] == MAX_BATCH_PAUSE_S
