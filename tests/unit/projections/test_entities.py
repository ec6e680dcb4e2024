"""The fold of entities: each value with its source and time."""

from __future__ import annotations

from typing import Any

from hub.engine.case import Case
from hub.projector.folding import fold
from projections.entities.fold import PROJECTION, key_of, merged
from tests.board_events import DEAL as DATA
from tests.board_events import Deal, event

DEAL = Deal(1)


def test_it_is_the_processors_own_fold() -> None:
    won = DEAL.won()
    row = fold(PROJECTION, [won], {})[key_of(DEAL.case, DEAL.case)].after
    assert row is not None
    entity = Case(id=DEAL.case, opened_by=DEAL.case).with_entity(won).entities[DEAL.case]
    assert (row["data"], row["stage"], row["version"]) == (dict(entity.data), "won", "7")
    assert row["sources"]["amount"] == ["/connectors/crm", won.time]


def test_the_hubs_own_notes_are_no_entities() -> None:
    notes = [
        DEAL.parked(0),
        DEAL.requested(0),
        event("hub.parked.retried", DEAL.case, {"parked": "x"}, case=DEAL.case),
        event("hub.delivery.ignored", "delivery/crm/d1", {"body": "{}"}),
    ]
    assert fold(PROJECTION, notes, {}) == {}


def test_one_entity_of_several_cases_has_the_newest_of_each_field() -> None:
    early = event("crm.opportunity.changed", DEAL.case, {**DATA, "amount": "1"}, case="account/crm/A", minutes=1)
    late = event(
        "crm.opportunity.changed", DEAL.case, {**DATA, "amount": "2", "more": True}, case="account/crm/B", minutes=2
    )
    rows: list[Any] = [change.after for change in fold(PROJECTION, [late, early], {}).values()]
    found = merged(sorted(rows, key=lambda row: str(row["time"])))
    assert found is not None
    assert (found["data"]["amount"], found["data"]["more"]) == ("2", True)
    assert found["sources"]["amount"]["time"] == late.time
    assert merged([]) is None
