"""The runner: rows and position together, one writer, nothing skipped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.kit.records import read_event
from hub.log.event_log import Record
from hub.log.memory_log import MemoryLog
from hub.log.sequence_gaps import repaired
from hub.log.sequences import Loss
from hub.projector.rebuild import rebuild
from hub.projector.runner import TAKEOVER_TIMEOUT_S, Runner, next_size
from hub.projector.store import BoardStore, FencedError, Owner
from hub.runtime.clock import FixedClock
from projections.tasks.fold import PROJECTION
from schemas.envelope import format_time
from tests.board_events import START, Deal, Relay, eventually


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BoardStore]:
    opened = BoardStore(f"sqlite:///{tmp_path}/boards.sqlite")
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def relay() -> Relay:
    return Relay(MemoryLog())


def runner(relay: Relay, store: BoardStore, holder: str = "a") -> Runner:
    clock = FixedClock(START + timedelta(minutes=5))
    return Runner(relay.log, store, PROJECTION, clock=clock, holder=f"elsewhere:1:{holder}")


def cards(store: BoardStore) -> dict[str, str]:
    with store.reading() as conn:
        return {row.key: row.state for row in conn.execute(PROJECTION.table.select()) if row.became is None}


def owner_of(store: BoardStore) -> Owner:
    owner = store.owner("tasks")
    assert owner is not None
    return owner


def test_rows_and_position_are_those_of_the_log(relay: Relay, store: BoardStore) -> None:
    written = relay.send(Deal(1).story())
    assert runner(relay, store).catch_up() == len(written)
    assert cards(store) == {"task/pm/100": "created", "task/pm/101": "created", "task/pm/102": "created"}
    (place,) = [place for place in store.places("tasks").values() if place.next_offset]
    assert place.next_offset == len(written)
    assert place.sequences == {"o1": len(written)}
    assert place.as_of == Deal(1).created(0).recordedtime


def test_a_source_whose_clock_is_ahead_does_not_make_a_board_look_newer_than_it_is(
    relay: Relay, store: BoardStore
) -> None:
    told = Deal(1).won()
    relay.send([told.model_copy(update={"time": format_time(START + timedelta(days=9))})])
    runner(relay, store).catch_up()
    assert max(place.as_of for place in store.places("tasks").values()) == told.recordedtime


def test_a_repeat_in_the_log_is_passed_over(relay: Relay, store: BoardStore) -> None:
    written = relay.send(Deal(1).story())
    relay.append(written[2:4])
    relay.send([Deal(1).step(0, "started", 9)])
    runner(relay, store).catch_up()
    assert cards(store)["task/pm/100"] == "started"


def test_a_gap_stops_the_board_before_it_and_says_so(relay: Relay, store: BoardStore) -> None:
    first = relay.send(Deal(1).story())
    relay.last = {partition: last + 1 for partition, last in relay.last.items()}  # one was lost
    relay.send([Deal(1).step(0, "completed", 9)])
    for _ in range(2):
        with pytest.raises(FatalError) as raised:
            runner(relay, store).catch_up()
        assert raised.value.code == "HUB-E5101"
        assert raised.value.seen["last"] == len(first)
        assert cards(store)["task/pm/100"] == "created"


def test_a_gap_that_was_dealt_with_is_passed_also_by_a_board_that_is_made_anew(relay: Relay, store: BoardStore) -> None:
    first = relay.send(Deal(1).story())
    (at,) = {partition for partition, last in relay.last.items() if last}
    relay.last[at] += 1  # one was lost
    relay.send([Deal(1).step(0, "completed", 9)])
    with pytest.raises(FatalError, match="HUB-E5101"):
        runner(relay, store).catch_up()
    loss = Loss("gap", at, len(first), "o1", len(first), len(first) + 2)
    relay.append([repaired(loss, START, published=0, accepted=1, reason="a test", by="me")])
    runner(relay, store).catch_up()
    assert cards(store)["task/pm/100"] == "completed"
    rebuilt = rebuild(relay.log, store, PROJECTION, verify=True)
    assert rebuilt.equal


def test_a_number_that_was_never_given_is_passed_once_that_was_said_and_counts_for_nothing(
    relay: Relay, store: BoardStore
) -> None:
    first = relay.send(Deal(1).story())
    (at,) = {partition for partition, last in relay.last.items() if last}
    true = dict(relay.last)
    relay.last[at] = 10**18
    relay.send([Deal(1).step(1, "started", 8)])
    with pytest.raises(FatalError, match="HUB-E5101"):
        runner(relay, store).catch_up()
    relay.last = true
    loss = Loss("gap", at, len(first), "o1", len(first), 10**18 + 1)
    relay.append([repaired(loss, START, published=0, accepted=0, reason=None, by="me", foreign=True)])
    relay.send([Deal(1).step(0, "completed", 9)])
    runner(relay, store).catch_up()
    assert cards(store)["task/pm/100"] == "completed"
    assert rebuild(relay.log, store, PROJECTION, verify=True).equal
    relay.last[at] += 1  # a true loss is still seen
    relay.send([Deal(1).step(0, "reopened", 10)])
    with pytest.raises(FatalError, match="HUB-E5101"):
        runner(relay, store).catch_up()


def test_an_event_that_no_board_can_read_has_its_number_all_the_same(relay: Relay, store: BoardStore) -> None:
    """An old event that a later version refuses is parked by the processor; nothing was lost."""
    deal = Deal(1)
    bad = deal.requested(1).model_copy(update={"data": {"title": 7}})
    relay.send([deal.won(), bad, deal.requested(0)])
    runner(relay, store).catch_up()
    assert owner_of(store).unreadable == 1
    assert len(cards(store)) == 1


def test_a_record_that_is_no_event_is_counted_and_passed_over(relay: Relay, store: BoardStore) -> None:
    deal = Deal(1)
    bad = deal.requested(1).model_copy(update={"data": {"title": 7}}).to_json()
    relay.send([deal.won()])
    for value in (None, b"", b"\xff\xfe", b"[]", b"{}", bad, b"[" * 100_000):
        relay.raw(deal.case, value)
    relay.send([deal.requested(0)])
    runner(relay, store).catch_up()
    assert owner_of(store).unreadable == 7
    assert len(cards(store)) == 1


def test_text_that_no_store_can_hold_is_replaced(relay: Relay, store: BoardStore) -> None:
    deal = Deal(1, tasks=("a\x00b",))
    relay.send(deal.story())
    runner(relay, store).catch_up()
    with store.reading() as conn:
        titles = {row.title for row in conn.execute(PROJECTION.table.select())}
    assert titles == {"a\N{REPLACEMENT CHARACTER}b"}


def test_who_was_taken_over_from_writes_nothing(relay: Relay, store: BoardStore) -> None:
    first, second = runner(relay, store, "a"), runner(relay, store, "b")
    lease = first.try_claim()
    assert lease is not None
    assert second.try_claim() is None  # the first may be alive
    assert isinstance(second.clock, FixedClock)
    second.clock.advance(TAKEOVER_TIMEOUT_S)
    taken = second.try_claim()
    assert taken is not None
    relay.send(Deal(1).story())
    batch = relay.log.reader("hub.events", dict.fromkeys(range(12), 0)).read(100, 0)
    with pytest.raises(FencedError):
        first.fold(lease, batch)
    assert cards(store) == {}
    second.fold(taken, batch)
    assert len(cards(store)) == 3


def test_a_writer_with_signs_of_life_is_left_alone(relay: Relay, store: BoardStore) -> None:
    first, second = runner(relay, store, "a"), runner(relay, store, "b")
    lease = first.try_claim()
    assert lease is not None
    assert isinstance(second.clock, FixedClock)
    for _ in range(3):
        assert second.try_claim() is None
        second.clock.advance(TAKEOVER_TIMEOUT_S - 1)
        store.beat("tasks", lease.claim, None)
    store.release("tasks", lease.claim)
    assert second.try_claim() is not None


def test_a_board_ahead_of_the_log_is_refused(relay: Relay, store: BoardStore) -> None:
    relay.send(Deal(1).story())
    runner(relay, store).catch_up()
    with pytest.raises(FatalError) as raised:
        runner(Relay(MemoryLog()), store).catch_up()
    assert raised.value.code == "HUB-E5104"


def test_it_follows_the_log_until_it_is_stopped(relay: Relay, store: BoardStore) -> None:
    seen, stop = threading.Event(), threading.Event()
    live = Runner(relay.log, store, PROJECTION, on_commit=lambda name, changes, at: seen.set(), every=0.05)
    thread = threading.Thread(target=live.run, args=(stop,))
    thread.start()
    try:
        relay.send(Deal(1).story())
        assert seen.wait(10)
        eventually(lambda: owner_of(store).fresh_at != "")
    finally:
        stop.set()
        thread.join(10)
    assert owner_of(store).holder == ""


@pytest.mark.parametrize(
    ("size", "read", "seconds", "after"),
    [(200, 200, 0.05, 400), (2000, 2000, 0.05, 2000), (200, 50, 0.05, 200), (200, 200, 0.9, 100), (60, 60, 0.9, 50)],
)
def test_batches_grow_while_they_are_quick(size: int, read: int, seconds: float, after: int) -> None:
    assert next_size(size, read, seconds) == after


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("1e999", "inf"),
        ("-1E+999", "-inf"),
        ("NaN", "nan"),
        ("-Infinity", "-inf"),
        ('"a\\u0000b"', "a\N{REPLACEMENT CHARACTER}b"),
        ("1e3", 1000.0),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", "9223372036854775808"),
        ('{"deep": [{"er": -1e999}]}', {"deep": [{"er": "-inf"}]}),
    ],
)
def test_values_that_a_store_cannot_hold_are_written_as_text(raw: str, kept: object) -> None:
    deal = Deal(1)
    told = deal.won().to_json().replace(b'"name"', b'"odd":' + raw.encode() + b',"name"', 1)
    event = read_event(Record("hub.events", 0, 0, deal.case.encode(), told))
    assert event is not None
    assert event.data["odd"] == kept
