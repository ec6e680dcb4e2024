"""The fold of deals: given these events, this row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from hub.projector.folding import fold
from projections.deals.fold import PROJECTION
from schemas.envelope import Event
from tests.board_events import DEAL as DATA
from tests.board_events import Deal, event

DEAL = Deal(1)


def deal_of(events: Sequence[Event]) -> dict[str, Any]:
    after = fold(PROJECTION, events, {})[DEAL.case].after
    assert after is not None
    return dict(after)


def counts(events: Sequence[Event]) -> tuple[int, int, int]:
    row = deal_of(events)
    return row["tasks_total"], row["tasks_done"], row["tasks_parked"]


def test_a_won_deal_and_its_delivery() -> None:
    row = deal_of(DEAL.story())
    assert (row["name"], row["account"], row["amount"], row["currency"]) == ("网关项目", "华为", "880000", "CNY")
    assert (row["stage"], row["owner"]) == ("won", "person/wang.fang")
    assert (row["project"], row["project_name"], row["delivered"]) == ("project/pm/P-1", "交付 网关项目", False)
    assert (row["tasks_total"], row["tasks_done"], row["tasks_parked"]) == (3, 0, 0)
    assert row["times"]["won"] == DEAL.won().time


def test_tasks_are_counted_as_they_stand() -> None:
    story = DEAL.story()
    assert counts(story[:3]) == (2, 0, 0)
    assert counts([*story, DEAL.step(0, "completed", 5), DEAL.step(1, "cancelled", 5)]) == (2, 1, 0)
    assert counts([*story, DEAL.step(0, "completed", 5), DEAL.step(0, "reopened", 6)]) == (3, 0, 0)
    assert counts([DEAL.won(), DEAL.requested(0), DEAL.parked(0)]) == (1, 0, 1)


def test_repeats_count_once() -> None:
    story = [*DEAL.story(), DEAL.step(0, "completed", 5)]
    assert deal_of([*story, *story]) == deal_of(story)


def test_a_finished_project_is_delivered() -> None:
    done = event("work.project.completed", "project/pm/P-1", {}, case=DEAL.case, minutes=9)
    assert deal_of([*DEAL.story(), done])["delivered"] is True


def test_an_older_version_takes_nothing_back() -> None:
    older = event("crm.opportunity.changed", DEAL.case, {**DATA, "amount": "1"}, version="6", minutes=5)
    newer = event("crm.opportunity.changed", DEAL.case, {**DATA, "amount": "2"}, version="8", minutes=6)
    assert deal_of([DEAL.won(), older])["amount"] == "880000"
    assert deal_of([DEAL.won(), newer])["amount"] == "2"
    assert deal_of([DEAL.won(), newer])["stage"] == "won"


def test_work_of_other_cases_makes_no_deal() -> None:
    other = event("work.task.created", "task/pm/1", {"title": "a"}, case="complaint/desk/C-1")
    orphan = event("work.task.created", "task/pm/1", {"title": "a"}, case="opportunity/crm/O-9")
    assert fold(PROJECTION, [other, orphan], {}) == {}


def told(name: str, minutes: float, version: str, **more: Any) -> Event:
    clears = more.pop("clears", None)
    data = {} if name == "deleted" else {**DATA, **more}
    return event(f"crm.opportunity.{name}", DEAL.case, data, minutes=minutes, version=version, clears=clears)


def test_a_field_that_its_source_empties_is_empty_whatever_comes_late() -> None:
    cleared = told("changed", 3, "3", owner=None, clears=["owner", "note"])
    story = [told("won", 1, "1"), cleared, told("changed", 2, "2", owner="person/li.lei")]
    for order in permutations(story):
        assert deal_of(order)["owner"] is None
    assert deal_of([*story, told("changed", 4, "4")])["owner"] == "person/wang.fang"
    nothing = told("changed", 5, "5", owner=None)
    assert deal_of([told("won", 1, "1"), nothing])["owner"] == "person/wang.fang"


def test_a_deal_that_is_deleted_leaves_the_board_until_its_source_tells_of_it_again() -> None:
    story = [told("created", 0, "1"), told("won", 1, "2"), told("changed", 2, "3"), told("deleted", 3, "4")]
    for order in permutations(story):
        assert deal_of(order)["stage"] == "deleted"
    assert deal_of([*story, told("changed", 4, "5")])["stage"] == "won"
    assert deal_of([*story, *DEAL.story()[1:]])["stage"] == "deleted"
    assert deal_of(story)["name"] == DATA["name"]
    assert deal_of([told("deleted", 3, "4"), *story])["times"].keys() == {"open", "won", "deleted"}


def test_a_task_or_a_project_that_is_deleted_counts_no_more() -> None:
    story = [*DEAL.story(), DEAL.step(0, "deleted", 9)]
    assert counts(story) == (2, 0, 0)
    gone = event("work.project.deleted", "project/pm/P-1", {}, case=DEAL.case, minutes=9)
    assert deal_of([*story, gone])["project"] is None
