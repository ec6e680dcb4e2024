"""The fold of deals: given these events, this row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from projections.deals.rows import PROJECTION
from projections.folding import fold
from schemas.event import Event
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
