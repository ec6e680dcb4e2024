"""What the audit has to say of cases that the processor has forgotten."""

from __future__ import annotations

import pytest

from hub.replay.audit.cases import AuditedCase
from hub.replay.audit.reading import ProcessorState, read_partition, read_states
from tests.events import event
from tests.unit.hub.processor.forgetting_stage import DEALS, Partition
from tests.unit.hub.processor.test_forgetting import finished


def forgotten() -> Partition:
    made = finished()
    made.append(event("crm.account.changed", "account/crm/A", recordedtime="2027-01-01T00:00:00.000000Z"))
    made.fold()
    return made


def case_of(made: Partition, state: ProcessorState | None = None) -> AuditedCase:
    key = DEALS[0].encode()
    known = read_states(made.log, 0).cases[key] if state is None else state
    return AuditedCase(DEALS[0], read_partition(made.log, 0).cases[key], known, frozenset())


def test_a_case_that_was_over_may_be_forgotten() -> None:
    case = case_of(forgotten())
    assert case.is_forgotten
    assert (case.is_over(), case.unreached(), case.differing(), case.behind) == (True, [], [], [])


def test_one_that_was_not_over_and_records_that_would_not_come_back_are_found() -> None:
    made = finished()
    made.append(event("crm.opportunity.reopened", DEALS[0], version="99", id="open"))
    assert not case_of(made, ProcessorState(99, None, spans=((0, 99),))).is_over()
    case = case_of(made, ProcessorState(99, None, spans=((0, 3), (5, 99))))
    assert case.unreached() == [f"{DEALS[0]}: 4"]


@pytest.mark.parametrize(("row", "spans"), [([], ()), ([3, 0], ((3, 3),)), ([3, 2, 10, 0], ((3, 5), (15, 15)))])
def test_the_row_of_numbers_is_read_as_it_was_written(row: list[int], spans: tuple[tuple[int, int], ...]) -> None:
    from hub.processor.case_expiry import stretches
    from hub.replay.audit.reading import _spans

    assert _spans(row) == tuple(stretches(row)) == spans
