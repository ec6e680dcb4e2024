"""A preview folds the case as the processor keeps it, with the rules as they are now, and appends nothing."""

from __future__ import annotations

import pytest

from hub.cli import terminal
from hub.cli.parked_preview import lines, of_case
from hub.engine.case import Case, to_json
from hub.engine.parking import fold
from hub.engine.step import EmitCommand
from hub.errors import RejectedError
from hub.log.event_log import Outgoing, Record
from hub.log.memory_log import MemoryLog
from hub.log.partitioner import partition_of
from schemas.decoding import AnyEvent
from schemas.envelope import Event
from schemas.topics import PARTITIONS
from tests.events import ProjectRules, event, won

DEAL = "opportunity/crm/O-1"
PARTITION = partition_of(DEAL.encode(), PARTITIONS)


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal.speech, "language", "en")


def no_role(_event: AnyEvent) -> Exception | None:
    return RejectedError("HUB-E3140", role="chief", near="lead", rule="won")


def parked_log(*events: Event) -> MemoryLog:
    """A log whose case holds these events, as the processor left it; an older state of the case lies before."""
    log, case = MemoryLog(), None
    writer = log.writer()
    for offset, told in enumerate(events):
        writer.append([Outgoing("hub.events", told.case.encode(), told.to_json())])
        record = Record("hub.events", PARTITION, offset, told.case.encode(), told.to_json())
        case = fold(case, record, ProjectRules(no_role), lambda _: []).case
        assert isinstance(case, Case)
        writer.append([Outgoing("hub.state", DEAL.encode(), to_json(case, offset))])
    return log


def test_it_tells_commands_and_what_follows_in_the_order_of_the_case() -> None:
    changed = event("crm.opportunity.changed", DEAL, version="8")
    log = parked_log(won(), changed)
    before = dict(log.ends("hub.events"))
    first, second = of_case(log, DEAL, ProjectRules())
    asked = [
        o.command.id
        for o in fold(None, _record(won()), ProjectRules(), lambda _: []).outputs
        if isinstance(o, EmitCommand)
    ]
    assert [command["id"] for command in first["commands"]] == asked
    assert (first["outcome"], second["ref"], second["outcome"]) == ("done", f"event/{changed.id}", "done")
    assert log.ends("hub.events") == before
    assert "project.create @pm" in "\\n".join(lines([first, second], set()))


def test_it_tells_the_same_failure_and_who_waits_behind_it() -> None:
    changed = event("crm.opportunity.changed", DEAL, version="8")
    first, second = of_case(parked_log(won(), changed), DEAL, ProjectRules(no_role))
    assert (first["outcome"], first["code"], second["outcome"]) == ("fails", "HUB-E3140", "waits")
    assert "nobody holds the role 'chief'" in "\\n".join(lines([first, second], set()))


def test_a_case_that_nobody_knows_has_nothing_to_tell() -> None:
    assert list(of_case(MemoryLog(), DEAL, ProjectRules())) == []


def _record(told: Event) -> Record:
    return Record("hub.events", PARTITION, 0, told.case.encode(), told.to_json())
