"""A ledger that was restored from a backup learns from the log what it has forgotten: nothing is done twice, no event is lost."""

from __future__ import annotations

import shutil
import threading
from collections import Counter

import pytest
from sqlalchemy import create_engine, text

from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.intake.relay import Relay
from hub.kit.connector import Idempotency, RateLimits
from hub.ledger import commands, links, outbox, parked_work, timers
from hub.ledger.ledger import Ledger
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.log.outbox_in_log import tails
from hub.log.sequences import sequence_of, with_sequence, without_sequence
from hub.runtime.clock import SystemClock
from hub.runtime.watchdog import at_work
from schemas.envelope import Command, format_time, parse_time, promise
from schemas.topics import COMMANDS, EVENTS, PARTITIONS
from tests.background import background
from tests.broker.program import until
from tests.events import won
from tests.executor_bench import Bench, command

LATER, LONG_AGO = "2099-01-01T00:00:00Z", "2020-01-01T00:00:00Z"


def copy_of(url: str) -> str:
    """A copy of a database that nobody has open."""
    if url.startswith("sqlite"):
        shutil.copy(url.removeprefix("sqlite:///"), url.removeprefix("sqlite:///") + ".copy")
        return f"{url}.copy"
    server, _, name = url.rpartition("/")
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}_copy TEMPLATE {name}"))
    engine.dispose()
    return f"{url}_copy"


def empty(url: str) -> str:
    """A new database beside another."""
    server, _, name = url.rpartition("/")
    if url.startswith("sqlite"):
        return f"{url}.new"
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(text(f"CREATE DATABASE {name}_new"))
    engine.dispose()
    return f"{url}_new"


def relayed(ledger: Ledger, log: MemoryLog) -> None:
    with background(Relay(ledger, log, SystemClock())) as relay:
        assert relay.drained(10)


def record(ledger: Ledger, *numbers: int) -> int:
    events = [won(f"O-{number}", version=str(number)) for number in numbers]
    return ledger.writer.run(lambda conn: outbox.record(conn, events, "crm"))


def ids_by_number(log: MemoryLog) -> dict[tuple[int, int], set[str]]:
    """Partition and sequence → the events that were sent under it."""
    found: dict[tuple[int, int], set[str]] = {}
    for (topic, partition), there in log.records.items():
        for each in there if topic == EVENTS.name else ():
            own = sequence_of(each.value)
            assert own is not None
            found.setdefault((partition, own[1]), set()).add(str(each.value).partition('"id":"')[2][:36])
    return found


def waiting_timers(ledger: Ledger) -> list[str]:
    with ledger.reading() as conn:
        return [row.id for row in timers.due(conn, format_time(parse_time(LATER)))]


def asked(number: int, *more: str) -> list[Command]:
    """A project in a case of its own, and what rests on it."""
    case = f"opportunity/crm/O-{number}"
    project = command(0, case, "project.create", name="交付")
    return [project, *(command(k, case, title=t, project=promise(project.id)) for k, t in enumerate(more, 1))]


def test_numbers_that_were_given_are_not_given_again(url: str) -> None:
    log, ledger = MemoryLog(), Ledger(url)
    record(ledger, *range(20))
    relayed(ledger, log)
    record(ledger, *range(20, 30))  # these wait in the backup, and were sent since
    ledger.close()
    backup = copy_of(url)
    ledger = Ledger(url)
    record(ledger, *range(30, 60))
    relayed(ledger, log)
    ledger.close()
    restored = Ledger(backup)
    before = sum(len(there) for there in log.records.values())
    relayed(restored, log)
    assert sum(len(there) for there in log.records.values()) == before
    assert record(restored, *range(60)) == 0  # told once more by their senders
    assert record(restored, *range(60, 90)) == 30
    relayed(restored, log)
    numbers = ids_by_number(log)
    assert all(len(told) == 1 for told in numbers.values())
    assert len(numbers) == 90
    assert len({told.pop() for told in numbers.values()}) == 90
    with restored.reading() as conn:
        assert outbox.sequence_ends(conn) == tails(log, restored.outbox_id, {})
        assert links.case_of(conn, "opportunity/crm/O-59") == "opportunity/crm/O-59"
    restored.close()


def test_who_waits_while_another_thread_teaches_the_ledger_does_not_hang(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall, looking, over = LedgerCatchUp(ledger, MemoryLog(), SystemClock()), threading.Event(), threading.Event()
    waits, beaten = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        over.wait()

    def wait() -> None:
        with at_work("rounds"):
            waits.set()
            recall.make_sure()

    monkeypatch.setattr(recall, "_check_ledger", look)
    monkeypatch.setattr("hub.executor.ledger_catch_up.beat", beaten.set)
    threads = [threading.Thread(target=each) for each in (recall.make_sure, wait)]
    threads[0].start()
    looking.wait()
    threads[1].start()
    waits.wait()
    try:
        assert beaten.wait(30)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert recall.is_sure


@pytest.mark.parametrize("age", ["the same", "older", "new"])
def test_a_forged_number_is_not_taken_over(url: str, age: str) -> None:
    log, ledger = MemoryLog(), Ledger(url)
    record(ledger, *range(20))
    relayed(ledger, log)
    name, older = ledger.outbox_id, url
    ledger.close()
    if age == "older":
        older = copy_of(url)
        ledger = Ledger(url)
        record(ledger, *range(20, 40))
        relayed(ledger, log)
        ledger.close()
    ends = tails(log, name, {})
    bodies = [
        (each.partition, with_sequence(without_sequence(each.value or b""), number, name))
        for (topic, _), there in list(log.records.items())
        if topic == EVENTS.name
        for each in there
        for number in (*range(5_000_000, 5_000_020), *range(10**13, 10**13 + 20), 2**63 - 1)
    ]
    log.writer().append([Outgoing(EVENTS.name, b"k", body, partition) for partition, body in bodies])
    restored = Ledger(empty(url) if age == "new" else older)
    LedgerCatchUp(restored, log, SystemClock()).make_sure()
    with restored.reading() as conn:
        assert outbox.sequence_ends(conn) == ends
    assert record(restored, *range(60)) == (20 if age == "older" else 40)
    restored.close()


@pytest.mark.parametrize("class_", [Idempotency.KEY, Idempotency.LOOKUP])
def test_what_was_done_is_not_done_again(url: str, class_: Idempotency) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm", class_=class_, limits=RateLimits(10_000, 8, timeout=0.5, settle=0.05))
    early, late, open_ = asked(1, "a", "b"), asked(2, "c"), asked(3, "d")
    timer = [command(0, "opportunity/crm/O-5", "timer.set", at=LATER, name="t")]
    bench.ask(*early)
    with bench.ledger.writer.engine.begin() as conn:
        commands.accept_all(conn, [(each, each.to_json()) for each in early], "2026-11-20T02:00:00.000000Z")
    bench.ledger.close()
    backup = copy_of(url)

    bench.ledger = Ledger(url)
    bench.ask(*late, *timer)
    with bench.running():
        bench.until_states("DONE", [*early, *late, *timer])
    relayed(bench.ledger, bench.log)
    bench.ask(*open_)  # these nobody has begun
    bench.ledger.close()

    bench.ledger = Ledger(backup)
    with bench.running():
        bench.until_states("DONE", [*early, *late, *open_, *timer])
    assert Counter(system.effects) == dict.fromkeys([each.id for each in (*early, *late, *open_)], 1)
    assert len(system.sent) == 7
    rows = bench.rows()
    assert {rows[each.id].effect_id for each in (*early, *late, *open_)} == {
        f"T-{each.id}" for each in (*early, *late, *open_)
    }
    if class_ is Idempotency.LOOKUP:
        assert set(system.looked) == {each.id for each in open_}
    assert waiting_timers(bench.ledger) == [timer[0].id]
    with bench.ledger.reading() as conn:
        assert links.case_of(conn, f"task/pm/T-{late[1].id}") == "opportunity/crm/O-2"
    bench.ledger.close()


@pytest.mark.parametrize("class_", [Idempotency.KEY, Idempotency.LOOKUP, Idempotency.NONE])
def test_a_ledger_that_was_lost_is_made_anew_from_the_log(url: str, class_: Idempotency) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm", class_=class_, limits=RateLimits(10_000, 8, timeout=0.5, settle=0.05))
    done, open_ = asked(1, "a", "b"), asked(2)
    record(bench.ledger, *range(30))
    bench.ask(*done)
    with bench.running():
        bench.until_states("DONE", done)
    relayed(bench.ledger, bench.log)
    lost = bench.ledger.outbox_id
    bench.ask(*open_)  # whether somebody had begun these, nobody can say any more
    bench.ledger.close()

    bench.ledger = Ledger(empty(url))
    with bench.running():
        bench.until_states("DONE", done)
        bench.until_states("PARKED" if class_ is Idempotency.NONE else "DONE", open_)
    assert Counter(system.effects)[done[0].id] == 1
    assert len(system.sent) == (3 if class_ is Idempotency.NONE else 4)
    assert bench.ledger.outbox_id == lost
    assert record(bench.ledger, *range(30)) == 0
    assert record(bench.ledger, 30) == 1
    relayed(bench.ledger, bench.log)
    assert all(len(told) == 1 for told in ids_by_number(bench.log).values())
    bench.ledger.close()


def test_a_new_ledger_keeps_timers_whose_commands_the_log_no_longer_has(url: str) -> None:
    bench = Bench(Ledger(url))
    waiting, over = [command(0, f"opportunity/crm/{at}", "timer.set", at=at, name="t") for at in (LATER, LONG_AGO)]
    bench.ask(waiting, over)
    with bench.running():
        bench.until_states("DONE", [waiting, over])
        until(lambda: waiting_timers(bench.ledger) == [waiting.id], "the other has fired")
    relayed(bench.ledger, bench.log)
    bench.ledger.close()
    for partition in range(PARTITIONS):
        bench.log.records.pop((COMMANDS.name, partition), None)
    bench.ledger = Ledger(empty(url))
    LedgerCatchUp(bench.ledger, bench.log, SystemClock()).make_sure()
    assert waiting_timers(bench.ledger) == [waiting.id]
    bench.ledger.close()


def test_programs_that_find_a_new_ledger_together_agree_on_its_name(url: str) -> None:
    log, ledger = MemoryLog(), Ledger(url)
    record(ledger, *range(5))
    relayed(ledger, log)
    ledger.close()
    new = empty(url)
    programs = [Ledger(new), Ledger(new)]
    for program in programs:
        LedgerCatchUp(program, log, SystemClock()).make_sure()
    assert {program.outbox_id for program in programs} == {ledger.outbox_id}
    for program in programs:
        program.close()


def test_what_a_person_gave_up_stays_given_up(url: str) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm")
    ours, theirs = asked(1, "after"), command(0, "opportunity/crm/O-2", "project.create", "nobody", name="x")
    bench.ledger.close()
    backup = copy_of(url)
    bench.ledger = Ledger(url)
    bench.ask(*ours, theirs)
    with bench.running():
        bench.until_states("PARKED", [theirs])
        bench.until_states("DONE", ours)
    now = SystemClock().now()
    assert bench.ledger.writer.run(lambda conn: parked_work.discard(conn, theirs.id, "not wanted", now))
    relayed(bench.ledger, bench.log)
    bench.ledger.close()
    bench.ledger = Ledger(backup)
    with bench.running():
        bench.until_states("DISCARDED", [theirs])
        bench.until_states("DONE", ours)
    assert len(system.sent) == 2
    bench.ledger.close()


def test_a_ledger_that_lacks_nothing_is_left_as_it_is(url: str) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm", class_=Idempotency.LOOKUP)
    record(bench.ledger, *range(5))
    relayed(bench.ledger, bench.log)
    mine = asked(1)
    bench.ask(*mine)
    with bench.running():
        bench.until_states("DONE", mine)
    assert system.looked == []
    before = len(bench.log.records)
    recall = LedgerCatchUp(bench.ledger, bench.log, SystemClock())
    sure = [recall.is_sure]
    recall.make_sure()
    assert [*sure, recall.is_sure] == [False, True]
    assert len(bench.log.records) == before
    bench.ledger.close()
