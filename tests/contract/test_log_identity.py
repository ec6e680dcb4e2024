"""Log, ledger and boards know each other: another log, an older one and another hub's are told, and nothing is sent into them."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from sqlalchemy import delete

from hub.errors import FatalError
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.ledger import commands, identity, outbox
from hub.ledger.identity import Cut
from hub.ledger.ledger import Ledger
from hub.ledger.log_match import KnownLog, match
from hub.log.memory_log import MemoryLog
from hub.ops.recovery import read_board_positions, survey
from hub.projector import registry
from hub.projector.folding import FoldPosition
from hub.projector.log_history import LogHistory, await_known_log, ledger_history, watch
from hub.projector.rebuild import rebuild
from hub.projector.runner import Runner
from hub.projector.store import BoardStore, write_places
from hub.runtime.clock import SystemClock
from schemas.topics import COMMANDS, EVENTS, PARTITIONS
from tests.board_events import Deal, Relay, eventually
from tests.contract.test_recall import asked, empty, ids_by_number, record, relayed
from tests.executor_bench import Bench


def copy_of(log: MemoryLog) -> MemoryLog:
    """The log as a snapshot of the broker's disk has it."""
    copy = MemoryLog(name=log.name)
    for place, there in log.records.items():
        copy.records[place] = list(there)
    return copy


def forget_log(ledger: Ledger) -> None:
    """As a ledger of a version before this one."""
    names = identity.identity.c.name
    ledger.writer.run(lambda conn: conn.execute(delete(identity.identity).where(names.startswith("log"))))


def test_a_log_that_lacks_what_was_published_is_refused_and_nothing_is_sent_to_it(ledger: Ledger) -> None:
    record(ledger, *range(20))
    relayed(ledger, MemoryLog())
    other = MemoryLog()
    record(ledger, *range(20, 25))
    with pytest.raises(FatalError, match="HUB-E2116") as raised:
        LedgerCatchUp(ledger, other, SystemClock()).make_sure()
    assert raised.value.seen["events"] == 20
    assert not any(other.records.values())
    with pytest.raises(FatalError, match="HUB-E2116"):
        survey(other, ledger.engine.url.render_as_string(hide_password=False), "sqlite:////nowhere/b.sqlite").refuse()


def test_a_copy_that_holds_all_is_the_log_from_then_on(ledger: Ledger) -> None:
    log = MemoryLog()
    record(ledger, *range(20))
    relayed(ledger, log)
    moved = copy_of(log)
    moved.name = "elsewhere"
    LedgerCatchUp(ledger, moved, SystemClock()).make_sure()
    with ledger.reading() as conn:
        assert identity.get_value(conn, identity.LOG) == moved.identity(EVENTS.name)
        assert outbox.counts(conn)["unpublished"] == 0
        assert match(moved, KnownLog.of(conn)).kind == "same"
        assert match(log, KnownLog.of(conn)).kind == "moved"


def test_an_older_log_is_given_what_it_lacks_under_the_old_sequences(ledger: Ledger) -> None:
    log = MemoryLog()
    record(ledger, *range(40))
    relayed(ledger, log)
    older = copy_of(log)
    record(ledger, *range(40, 90))
    relayed(ledger, log)
    numbers = ids_by_number(log)
    relayed(ledger, older)
    assert ids_by_number(older) == numbers
    record(ledger, *range(90, 100))
    relayed(ledger, older)
    assert all(len(told) == 1 for told in ids_by_number(older).values())
    assert len(ids_by_number(older)) == 100
    for partition in range(PARTITIONS):
        sequences = [number for place, number in ids_by_number(older) if place == partition]
        assert sorted(sequences) == list(range(1, len(sequences) + 1))


def test_what_was_done_is_not_done_again_after_the_log_has_become_older(url: str) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm")
    early, late, more = asked(1, "a"), asked(2, "b", "c"), asked(3)
    record(bench.ledger, 1)
    bench.ask(*early)
    with bench.running():
        bench.until_states("DONE", early)
    relayed(bench.ledger, bench.log)
    older = copy_of(bench.log)
    bench.ask(*late)
    with bench.running():
        bench.until_states("DONE", late)
    relayed(bench.ledger, bench.log)
    bench.log = older
    bench.ask(*more, *late)  # as the processor does once the events are there again
    with bench.running():
        bench.until_states("DONE", [*early, *late, *more])
    assert Counter(system.effects) == dict.fromkeys([each.id for each in (*early, *late, *more)], 1)
    assert len(system.sent) == 6
    bench.ledger.close()


def test_requests_are_read_from_their_first_one_where_their_topic_was_made_anew(url: str) -> None:
    bench = Bench(Ledger(url))
    system = bench.system("pm")
    first, second = asked(1, "a", "b"), asked(2)
    bench.ask(*first)
    with bench.running():
        bench.until_states("DONE", first)
    for partition in range(PARTITIONS):
        bench.log.records.pop((COMMANDS.name, partition), None)
    bench.ask(*first, *second)
    with bench.running():
        bench.until_states("DONE", [*first, *second])
    assert len(system.sent) == 4
    bench.ledger.close()


def test_a_ledger_of_another_hub_is_refused_by_name(url: str) -> None:
    ours, log = Ledger(url), MemoryLog()
    record(ours, *range(10))
    relayed(ours, log)
    theirs, elsewhere = Ledger(empty(url)), MemoryLog()
    record(theirs, *range(5))
    relayed(theirs, elsewhere)
    with pytest.raises(FatalError, match="HUB-E5009") as raised:
        LedgerCatchUp(theirs, log, SystemClock()).make_sure()
    told = raised.value.seen
    assert (told["outbox"], told["writer"]) == (theirs.outbox_id, ours.outbox_id)
    assert (told["known"], told["seen"]) == (elsewhere.identity(EVENTS.name), log.identity(EVENTS.name))
    ours.close()
    theirs.close()


def test_a_ledger_of_before_takes_the_log_that_holds_its_events_for_its_own(ledger: Ledger) -> None:
    log = MemoryLog()
    record(ledger, *range(10))
    relayed(ledger, log)
    forget_log(ledger)
    LedgerCatchUp(ledger, log, SystemClock()).make_sure()
    forget_log(ledger)
    with pytest.raises(FatalError, match="HUB-E2116"):
        LedgerCatchUp(ledger, MemoryLog(), SystemClock()).make_sure()


def known(store: BoardStore, relay: Relay, history: LogHistory | None) -> None:
    await_known_log(store, relay.log, lambda: history, registry.projections().values(), threading.Event())
    for projection in registry.projections().values():
        Runner(relay.log, store, projection, SystemClock()).catch_up()


def test_boards_begin_anew_when_the_ledger_knows_another_log_or_another_cut_of_it(url: str) -> None:
    store = BoardStore(url)
    store.prepare()
    cuts: list[Cut] = []
    for cut, deals in (("", (1, 2)), ("a1", (1,)), ("b2", (3,))):
        cuts += [Cut(cut, dict.fromkeys(range(PARTITIONS), 0))] if cut else []
        relay = Relay(MemoryLog(name="ours" if cut != "b2" else "another"))
        for number in deals:
            relay.send(Deal(number).story())
        known(store, relay, LogHistory(relay.log.identity(EVENTS.name), relay.outbox, tuple(cuts)))
        for projection in registry.projections().values():
            assert rebuild(relay.log, store, projection, verify=True).equal
        assert store.history()["cut"] == cut
    store.close()


def test_boards_of_another_hub_are_refused_and_left_as_they_are(url: str) -> None:
    store = BoardStore(url)
    store.prepare()
    relay = Relay(MemoryLog())
    relay.send(Deal(1).story())
    known(store, relay, LogHistory(relay.log.identity(EVENTS.name), relay.outbox))
    before = store.places("tasks")
    other = MemoryLog()
    with pytest.raises(FatalError, match="HUB-E5105"):
        await_known_log(
            store,
            other,
            lambda: LogHistory(other.identity(EVENTS.name), "theirs"),
            registry.projections().values(),
            threading.Event(),
        )
    assert store.places("tasks") == before
    store.close()


def test_boards_wait_until_the_ledger_has_settled_on_the_log(ledger: Ledger, url: str) -> None:
    store, stop = BoardStore(url), threading.Event()
    store.prepare()
    store.note_history(LogHistory("before", ledger.outbox_id).as_value())
    log = MemoryLog()
    waiting = threading.Thread(
        target=await_known_log,
        args=(store, log, lambda: ledger_history(ledger), registry.projections().values(), stop),
        daemon=True,
    )
    waiting.start()
    assert store.history()["log"] == "before"
    LedgerCatchUp(ledger, log, SystemClock()).make_sure()
    waiting.join(20)
    assert not waiting.is_alive()
    assert store.history()["log"] == log.identity(EVENTS.name)
    ended = threading.Event()
    watching = threading.Thread(
        target=watch, args=(store, lambda: ledger_history(ledger), ended.set, stop), daemon=True
    )
    watching.start()
    ledger.writer.run(lambda conn: identity.note_cut(conn, {3: 0}))
    eventually(lambda: store.history()["cut"] != "")
    assert not ended.is_set()
    with store.writing() as conn:
        write_places(conn, "tasks", {3: FoldPosition(7, {ledger.outbox_id: 5})})
    ledger.writer.run(lambda conn: identity.note_cut(conn, {3: 4}))
    assert ended.wait(20)
    store.close()


def test_what_only_the_boards_have_seen_is_counted_and_refused(ledger: Ledger, url: str) -> None:
    store, log = BoardStore(url), MemoryLog()
    store.prepare()
    record(ledger, *range(30))
    relayed(ledger, log)
    older = copy_of(log)
    record(ledger, *range(30, 50))
    relayed(ledger, log)
    for projection in registry.projections().values():
        Runner(log, store, projection, SystemClock()).catch_up()
    store.note_history(LogHistory(log.identity(EVENTS.name), ledger.outbox_id).as_value())
    url_of = ledger.engine.url.render_as_string(hide_password=False)
    told = survey(log, url_of, url)
    assert (told.gone, told.boards_ahead, told.boards_foreign, told.is_proved) == ({}, False, False, True)
    told = survey(older, url_of, url)
    assert (told.gone, told.boards_ahead) == ({}, True)
    assert told.match is not None
    assert (told.match.kind, told.match.missing) == ("behind", 20)
    told = survey(older, "sqlite:////nowhere/ledger.sqlite", url)
    assert sum(told.gone.values()) == 20
    with pytest.raises(FatalError, match="HUB-E2119"):
        told.refuse()
    assert read_board_positions(url).noted["outbox"] == ledger.outbox_id
    store.close()


def test_commands_of_a_ledger_that_stays_are_left_alone(url: str) -> None:
    bench = Bench(Ledger(url))
    system, mine = bench.system("pm"), asked(1)
    bench.ask(*mine)
    with bench.running():
        bench.until_states("DONE", mine)
    with bench.ledger.reading() as conn:
        assert commands.states(conn) == {"DONE": 1}
        assert identity.cuts(conn) == []
    assert len(system.sent) == 1
    bench.ledger.close()
