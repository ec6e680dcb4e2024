"""Cases that are over are forgotten after a while, and nobody can tell: what is said and what is remembered are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.processor.state import POSITION_KEY
from schemas.envelope import Event
from schemas.topics import EVENTS, STATE
from tests.events import event
from tests.unit.hub.processor.forgetting_stage import DEALS, KINDS, Partition, Teller

DEAL = DEALS[0].encode()


def finished(days: float = 0.0) -> Partition:
    """A deal that was won, and whose project is completed."""
    partition = Partition(forgets=timedelta(days=180))
    teller = Teller(partition, days)
    for kind in ("won", *["result"] * 3, "done", "done", *["result"] * 2, "relay"):
        teller.tell(0, kind, 1)
    partition.fold()
    return partition


def test_a_case_is_forgotten_once_it_has_been_over_for_long_enough() -> None:
    partition = finished()
    assert list(partition.state.over.since) == [DEAL]
    later = Teller(partition, 100)
    later.tell(1, "won", 80)
    partition.fold()
    assert DEAL in partition.state.cases
    later.tell(1, "changed", 15)
    partition.fold()
    assert (list(partition.state.cases), list(partition.state.forgotten)) == ([DEALS[1].encode()], [DEAL])
    kept = partition.kept()
    assert (kept.forgotten, list(kept.over.since)) == (partition.state.forgotten, [])


def test_a_case_of_which_something_is_expected_is_never_forgotten() -> None:
    for kinds in (
        ["won"],
        ["lost", "bad"],
        ["lost", "changed"],
        ["lost", "changed", "result"],
        ["won", *["result"] * 3],
    ):
        partition = Partition(forgets=timedelta(days=1))
        teller = Teller(partition)
        for kind in kinds:
            teller.tell(0, kind, 0)
        teller.tell(1, "lost", 900)
        teller.tell(1, "older", 900)
        partition.fold()
        assert DEAL in partition.state.cases, kinds
    teller.tell(0, "reopened", 0)
    partition.fold()
    assert DEAL in partition.state.cases


def test_news_of_a_forgotten_case_are_judged_as_if_it_had_not_been() -> None:
    partition = finished()
    Teller(partition, 300).tell(1, "won", 1)
    partition.fold()
    assert DEAL in partition.state.forgotten
    asked = len(partition.commands())
    partition.append(event("crm.opportunity.won", DEALS[0], version="99", id="again"))
    partition.fold()
    case = partition.state.get(DEAL)
    assert case is not None
    assert len(partition.commands()) == asked
    assert case.entities[DEALS[0]].fired == {"won": ("test",)}
    assert case.count == 6
    partition.append(event("crm.opportunity.lost", DEALS[0], version="100", id="lost"))
    partition.append(event("crm.opportunity.won", DEALS[0], version="101", id="anew"))
    partition.fold()
    assert len(partition.commands()) == asked + 3


def test_a_wrong_clock_far_ahead_forgets_nothing_that_has_just_ended() -> None:
    partition = finished(days=365 * 7000)
    assert list(partition.state.over.since) == [DEAL]
    Teller(partition).tell(1, "won", 1)
    partition.append(event("crm.opportunity.lost", DEALS[2], version="1", recordedtime="9999-12-31T23:59:59.999999Z"))
    partition.fold()
    assert DEALS[2].encode() in partition.state.cases


def large(monkeypatch: pytest.MonkeyPatch) -> Partition:
    """A case in several records, which was just forgotten; they end one by one."""
    monkeypatch.setattr("hub.processor.state.LARGE_CASE_BYTES", 200)
    monkeypatch.setattr("hub.processor.app.MAX_FORGOTTEN_RECORDS", 1)
    partition = finished()
    for at, kind in enumerate(("older", "changed", "result", "fired")):
        Teller(partition, 20 + at, 20 + at, list(told_of(partition))).tell(0, kind, 0)
        partition.fold()
    partition.append(event("crm.account.changed", "account/crm/A", recordedtime=AFTER))
    partition.fold()
    assert DEAL in partition.state.forgotten
    assert len(partition.state.leftover) > 3
    return partition


AFTER = "2027-01-01T00:00:00.000000Z"


def told_of(partition: Partition) -> Iterator[Event]:
    return (Event.from_json(record.value or b"") for record in partition.log.records[EVENTS.name, 0])


def test_what_comes_back_while_its_records_end_keeps_those_that_it_has_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = large(monkeypatch)
    partition.append(event("crm.opportunity.reopened", DEALS[0], version="99", id="again", recordedtime=AFTER))
    for n in range(20):
        partition.append(event("crm.account.changed", "account/crm/A", id=f"a{n}"))
    partition.fold(lambda: 1)
    assert partition.state.leftover == []
    plain = Partition()
    plain.log.records[EVENTS.name, 0] = partition.log.records[EVENTS.name, 0]
    plain.fold()
    assert partition.cases() == plain.cases()


def test_the_records_of_a_large_case_all_end_also_where_a_worker_ends_amid_it(monkeypatch: pytest.MonkeyPatch) -> None:
    partition = large(monkeypatch)
    partition.start()
    assert len(partition.state.leftover) > 3
    assert not [key for key in partition.state.cases if key.startswith(DEAL)]
    for n in range(20):
        partition.append(event("crm.account.changed", "account/crm/A", id=f"a{n}"))
    partition.fold(lambda: 1)
    last = {record.key: record.value for record in partition.log.records[STATE.name, 0]}
    left = {key for key, value in last.items() if value is not None}
    assert left == {DEAL, b"account/crm/A", POSITION_KEY}
    assert len(last[DEAL] or b"") < 100


def test_no_time_is_no_clock() -> None:
    partition = Partition(forgets=timedelta(days=1))
    clock = partition.state.clock
    partition.append(event("crm.opportunity.lost", DEALS[0], version="1", recordedtime="9999-99-99T23:59:59.999999Z"))
    partition.fold()
    assert partition.state.clock == clock


moves = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(KINDS), st.sampled_from([0, 0, 0, 1, 5, 40, -3])), max_size=30
)
SMALL = {
    "hub.processor.state.LARGE_CASE_BYTES": 200,
    "hub.engine.case.MAX_HELD_INLINE": 2,
    "hub.processor.case_expiry.MAX_GAP_RECORDS": 1,
    "hub.processor.case_expiry.MAX_STRETCHES": 3,
}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    told=moves,
    days=st.sampled_from([0.0, 0.5, 3, 30, 100]),
    seed=st.integers(0, 2**16),
    crashes=st.lists(st.integers(0, 60), max_size=4),
    small=st.booleans(),
    room=st.sampled_from([0, 1500, 128 * 1024]),
)
def test_what_is_said_and_remembered_is_the_same_as_if_nothing_were_forgotten(
    told: list[tuple[int, str, float]], days: float, seed: int, crashes: list[int], small: bool, room: int
) -> None:
    plain, chance = Partition(), Random(seed)
    teller = Teller(plain)
    for deal, kind, later in told:
        teller.tell(deal, kind, later)
    plain.fold()
    with ExitStack() as patches:
        for name, value in SMALL.items() if small else ():
            patches.enter_context(patch(name, value))
        patches.enter_context(patch("hub.processor.folding.MAX_CASE_BYTES", room))
        patches.enter_context(patch("hub.processor.app.MAX_FORGOTTEN_RECORDS", chance.choice([1, 3, 5000])))
        patches.enter_context(patch("hub.processor.forgotten_cases.MAX_REFOLDED_RECORDS", chance.choice([1, 20_000])))
        forgetful = Partition(forgets=timedelta(days=days))
        forgetful.log.records[EVENTS.name, 0] = list(plain.log.records[EVENTS.name, 0])
        for left in (*crashes, 10**9):
            forgetful.left[0] = left
            forgetful.fold(lambda: chance.choice([1, 1, 2, 3, 50]), lambda: chance.random() < 0.5)
            forgetful.committed = chance.randrange(forgetful.committed + 1) if left < 10**9 else forgetful.committed
        assert forgetful.cases() == plain.cases()
        if crashes:
            assert set(forgetful.sent()) == set(plain.sent())
        else:
            assert forgetful.sent() == plain.sent()


def test_the_histories_that_are_played_forget_and_bring_back() -> None:
    """Or the property would hold for want of anything to try."""
    forgotten = back = 0
    for seed in range(3):
        chance, partition = Random(seed), Partition(forgets=timedelta(days=3))
        teller = Teller(partition)
        for _ in range(100):
            before = set(partition.state.forgotten)
            teller.tell(chance.randrange(3), chance.choice(KINDS), chance.choice([0, 0, 1, 5, 40]))
            partition.fold()
            forgotten += len(set(partition.state.forgotten) - before)
            back += len(before - set(partition.state.forgotten))
        assert partition.commands()
    assert forgotten > 5
    assert back > 5
