"""Registers: the newest order wins, however the events come."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from hub.kit.last_writer_wins import LastWriterWins, is_newer, order_of
from tests.board_events import event

EMPTY: dict[str, Any] = {"title": None, "times": {}, "marks": {}}


def test_any_order_of_events_leaves_the_same_row() -> None:
    told = [("2", "b"), ("1", "a"), ("3", "c")]
    rows = []
    for order in permutations(told):
        row = LastWriterWins(None, EMPTY)
        for mark, value in order:
            row.write(mark, {"title": value})
            row.step(mark, "seen", value)
        rows.append(row.row())
    assert rows[0]["title"] == "c"
    assert all(row == rows[0] for row in rows)


def test_none_tells_nothing() -> None:
    row = LastWriterWins(None, EMPTY)
    row.write("1", {"title": "a"})
    row.write("2", {"title": None})
    assert row.row()["title"] == "a"


def test_the_row_it_starts_from_stays_as_it_was() -> None:
    before: dict[str, Any] = {"title": None, "times": {}, "marks": {}}
    row = LastWriterWins(before, EMPTY)
    row.write("1", {"title": "a"})
    row.step("1", "seen", "t")
    assert before == {"title": None, "times": {}, "marks": {}}


def test_versions_of_the_source_count_as_numbers() -> None:
    ninth = order_of(event("work.task.started", "task/pm/1", {}, version="9", minutes=5))
    tenth = order_of(event("work.task.completed", "task/pm/1", {}, version="10", minutes=1))
    assert is_newer(tenth, ninth)
    assert not is_newer(ninth, tenth)


@pytest.mark.parametrize("version", [None, "²", "2026-11-20", "7f"])
def test_other_news_counts_by_when_it_was_recorded(version: str | None) -> None:
    tenth = order_of(event("work.task.started", "task/pm/1", {}, version="10", minutes=5))
    later = order_of(event("work.task.completed", "task/pm/1", {}, version=version, minutes=6))
    earlier = order_of(event("work.task.completed", "task/pm/1", {}, version=version, minutes=4))
    assert is_newer(later, tenth)
    assert not is_newer(earlier, tenth)
    assert is_newer(later, "")
    assert is_newer(later, later)
