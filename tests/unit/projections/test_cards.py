"""The fold of task cards: given these events, this card."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from hub.kit.projection import Row
from hub.projector.folding import fold, keys_of
from projections.tasks.fold import PROJECTION
from schemas.envelope import Event
from tests.board_events import Deal, event

DEAL = Deal(1)


def rows_of(events: Sequence[Event]) -> dict[str, Row]:
    changes = fold(PROJECTION, events, {})
    return {key: change.after for key, change in changes.items() if change.after is not None}


def card_of(events: Sequence[Event]) -> dict[str, Any]:
    return dict(rows_of(events)[DEAL.task(0)])


def test_a_request_is_a_card_before_the_task_exists() -> None:
    (row,) = rows_of([DEAL.requested(0)]).values()
    assert (row["state"], row["title"], row["assignee"], row["due"]) == (
        "requested",
        "启动会",
        "person/li.lei",
        "2026-11-24",
    )
    assert row["why"]["rule"] == "won-deal-to-delivery"
    assert row["why"]["effect"] is None


def test_the_task_takes_the_place_of_its_request() -> None:
    rows = rows_of([DEAL.requested(0), DEAL.created(0)])
    request, card = rows[f"request/pm/{DEAL.command(0)}"], rows["task/pm/100"]
    assert request["became"] == "task/pm/100"
    assert card["state"] == "created"
    assert card["became"] is None
    assert card["project"] == "P-1"
    assert card["why"]["effect"] == "task/pm/100"
    assert card["times"] == {"requested": DEAL.requested(0).time, "created": DEAL.created(0).time}


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        (["accepted"], "accepted"),
        (["accepted", "started"], "started"),
        (["started", "accepted"], "started"),
        (["accepted", "started", "completed"], "completed"),
        (["completed", "reopened"], "created"),
        (["completed", "reopened", "started"], "started"),
        (["completed", "reopened", "completed"], "completed"),
        (["cancelled"], "cancelled"),
        (["cancelled", "reopened"], "created"),
        (["assigned"], "created"),
        (["overdue"], "created"),
    ],
)
def test_steps_move_the_card(steps: list[str], state: str) -> None:
    told = [DEAL.step(0, name, 10 + at) for at, name in enumerate(steps)]
    assert card_of([DEAL.requested(0), DEAL.created(0), *told])["state"] == state


def test_an_older_version_takes_nothing_back() -> None:
    done, late = DEAL.step(0, "completed", 10, version="5"), DEAL.step(0, "reopened", 11, version="4")
    assert card_of([DEAL.created(0), done, late])["state"] == "completed"


def test_a_parked_request_says_why_and_goes_on_after_a_retry() -> None:
    retried = event(
        "hub.parked.retried",
        f"command/pm/{DEAL.command(0)}",
        {"parked": DEAL.command(0)},
        case=DEAL.case,
        minutes=5,
    )
    (parked,) = rows_of([DEAL.requested(0), DEAL.parked(0)]).values()
    assert (parked["state"], parked["code"], parked["reason"]) == ("parked", "HUB-E4006", "no such project")
    (again,) = rows_of([DEAL.requested(0), DEAL.parked(0), retried]).values()
    assert again["state"] == "requested"
    assert card_of([DEAL.requested(0), DEAL.parked(0), retried, DEAL.created(0)])["state"] == "created"


def test_a_discarded_request_is_cancelled() -> None:
    gone = event(
        "hub.parked.discarded",
        f"command/pm/{DEAL.command(0)}",
        {"parked": DEAL.command(0)},
        case=DEAL.case,
        minutes=5,
    )
    (row,) = rows_of([DEAL.requested(0), DEAL.parked(0), gone]).values()
    assert row["state"] == "cancelled"


def test_a_command_of_another_kind_has_no_card() -> None:
    sent = event("hub.command.parked", "command/im/c1", {"type": "message.send"}, case=DEAL.case)
    note = event("hub.parked.retried", "command/im/c1", {"parked": "c1"}, case=DEAL.case)
    assert rows_of([sent, note]) == {}


def test_a_task_made_by_a_person_has_a_card_without_a_cause() -> None:
    card = card_of([event("work.task.assigned", "task/pm/100", {"title": "打电话"})])
    assert (card["state"], card["title"], card["why"]) == ("created", "打电话", None)


def test_folding_twice_changes_nothing() -> None:
    events = [*DEAL.story(), DEAL.step(0, "started", 5), DEAL.step(0, "completed", 6)]
    once = rows_of(events)
    assert fold(PROJECTION, events, once) == {}


def test_any_interleaving_of_steps_gives_the_same_card() -> None:
    first = [DEAL.requested(0), DEAL.created(0)]
    told = [DEAL.step(0, name, 10 + at) for at, name in enumerate(["accepted", "completed", "reopened", "started"])]
    cards = [card_of([*first, *order]) for order in permutations(told)]
    assert all(card == cards[0] for card in cards)
    assert cards[0]["state"] == "started"


def test_other_events_concern_no_card() -> None:
    assert keys_of(PROJECTION, [DEAL.won(), DEAL.project()]) == set()


def test_a_task_that_is_deleted_has_no_column_until_its_source_tells_of_it_again() -> None:
    made = [DEAL.requested(0), DEAL.created(0), DEAL.step(0, "started", 5)]
    gone = DEAL.step(0, "deleted", 6)
    for order in permutations([*made, gone]):
        assert card_of(order)["state"] == "deleted"
    card = card_of([*made, gone])
    assert (card["title"], card["assignee"]) == ("启动会", "person/li.lei")
    assert card_of([*made, gone, DEAL.step(0, "assigned", 7)])["state"] == "started"
    assert card_of([*made, gone, DEAL.step(0, "completed", 7)])["state"] == "completed"


def test_a_field_that_its_source_empties_is_empty_on_the_card() -> None:
    made = [DEAL.requested(0), DEAL.created(0)]
    ref = DEAL.task(0)
    data = {"assignee": None, "title": None}
    cleared = event("work.task.changed", ref, data, case=DEAL.case, minutes=8, clears=["assignee", "due"])
    for order in permutations([*made, cleared]):
        card = card_of(order)
        assert (card["assignee"], card["due"], card["title"]) == (None, None, "启动会")
