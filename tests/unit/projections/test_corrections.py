"""A board shows what a case goes on with: a correction of parked work is folded like the event that it mends."""

from __future__ import annotations

from typing import Any

import pytest

from hub.kit.records import read_event
from hub.log.event_log import Record
from hub.projector.folding import FoldPosition, take, to_fold
from schemas.envelope import Event
from tests.events import event, won


def edited(told: Any, case: str = "opportunity/crm/O-1") -> Event:
    return event("hub.parked.edited", case, data={"parked": won().id, "by": "li.lei", "event": told})


def folded(*events: Event) -> list[Event]:
    records = [Record("hub.events", 0, at, one.case.encode(), one.to_json()) for at, one in enumerate(events)]
    return to_fold(take(records, {0: FoldPosition()}, "deals", read_event).found)


def test_the_corrected_event_follows_its_correction() -> None:
    mended = won(data={**won().data, "amount": "5"})
    note = edited(mended.model_dump(exclude_none=True))
    assert folded(won(), note) == [won(), note, mended]


@pytest.mark.parametrize("told", [None, {}, won("O-2").model_dump(exclude_none=True)])
def test_what_is_no_event_of_the_case_is_passed_over(told: Any) -> None:
    assert folded(edited(told)) == [edited(told)]
