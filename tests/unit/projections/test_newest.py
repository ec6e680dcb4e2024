"""Registers: the newest order wins, however the events come."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from projections.newest import Registers, order_of
from tests.board_events import event

EMPTY: dict[str, Any] = {"title": None, "times": {}, "marks": {}}


def test_any_order_of_events_leaves_the_same_row() -> None:
    told = [("2", "b"), ("1", "a"), ("3", "c")]
    rows = []
    for order in permutations(told):
        row = Registers(None, EMPTY)
        for mark, value in order:
            row.tell(mark, {"title": value})
            row.step(mark, "seen", value)
        rows.append(row.row())
    assert rows[0]["title"] == "c"
    assert all(row == rows[0] for row in rows)


def test_none_tells_nothing() -> None:
    row = Registers(None, EMPTY)
    row.tell("1", {"title": "a"})
    row.tell("2", {"title": None})
    assert row.row()["title"] == "a"


def test_the_row_it_starts_from_stays_as_it_was() -> None:
    before: dict[str, Any] = {"title": None, "times": {}, "marks": {}}
    row = Registers(before, EMPTY)
    row.tell("1", {"title": "a"})
    row.step("1", "seen", "t")
    assert before == {"title": None, "times": {}, "marks": {}}


def test_versions_count_as_numbers_and_beat_the_clock() -> None:
    ninth = event("work.task.started", "task/pm/1", {}, version="9", minutes=5)
    tenth = event("work.task.completed", "task/pm/1", {}, version="10", minutes=1)
    unversioned = event("work.task.created", "task/pm/1", {}, minutes=9)
    odd = event("work.task.created", "task/pm/1", {}, version="²", minutes=9)
    assert order_of(odd) < order_of(ninth) < order_of(tenth)
    assert order_of(unversioned) < order_of(ninth)
