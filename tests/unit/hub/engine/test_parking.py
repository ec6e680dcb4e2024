"""A record that fails is parked with its reason; its case waits, and goes on in order when it is taken up again."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
import pytest

from hub.engine.case import Case, from_json, to_json
from hub.engine.parking import CASE_WAITS, Folded, fold, try_again
from hub.engine.step import EmitCommand, ParkedEvent, SettledEvent, View
from hub.errors import RejectedError
from hub.log.event_log import Record
from schemas.decoding import AnyEvent
from schemas.envelope import Event
from tests.events import ProjectRules, event, record, won

BROKEN = RejectedError("HUB-E6005", reason="no amount")


def nothing(_offsets: Sequence[int]) -> list[bytes]:
    raise AssertionError("nothing is parked, so nothing is read again")


def retry(case: str = "opportunity/crm/O-1", parked: str = "", kind: str = "retried") -> Event:
    return event(f"hub.parked.{kind}", case, id=f"{kind}-{parked}", data={"parked": parked})


def edit(parked: str, corrected: Event, number: int = 1) -> Event:
    data = {"parked": parked, "by": "li.lei", "event": corrected.model_dump(exclude_none=True)}
    return event("hub.parked.edited", "opportunity/crm/O-1", id=f"edit-{number}", data=data)


class Log:
    """The records of one partition, as `fold` reads parked ones back."""

    def __init__(self, rules: ProjectRules) -> None:
        self.records: list[Record] = []
        self.case: Case | None = None
        self.rules = rules

    def add(self, what: Event | bytes, key: bytes | None = None) -> Folded:
        self.records.append(record(what, len(self.records), key))
        folded = fold(self.case, self.records[-1], self.rules, self.reread)
        self.case = folded.case or self.case
        return folded

    def reread(self, offsets: Sequence[int]) -> list[bytes]:
        return [self.records[offset].value or b"" for offset in offsets]


def parked(folded: Folded) -> list[tuple[str, str]]:
    return [(output.ref, output.code) for output in folded.outputs if isinstance(output, ParkedEvent)]


def asked(folded: Folded) -> list[str]:
    return [output.command.type for output in folded.outputs if isinstance(output, EmitCommand)]


def breaking_on_won(event: AnyEvent) -> Exception | None:
    return BROKEN if event.type == "crm.opportunity.won" else None


def test_a_rule_that_fails_parks_its_event_and_the_case_waits() -> None:
    log = Log(ProjectRules(breaking_on_won))
    first, second = won(), event("crm.opportunity.changed", "opportunity/crm/O-1", version="8")
    assert parked(log.add(first)) == [(f"event/{first.id}", "HUB-E6005")]
    assert parked(log.add(second)) == [(f"event/{second.id}", CASE_WAITS)]
    assert log.case is not None
    assert [held.offset for held in log.case.held] == [0, 1]
    assert log.case.entities == {}


def test_after_the_fix_a_retry_finishes_them_in_order() -> None:
    log = Log(ProjectRules(breaking_on_won))
    first, second = won(), event("crm.opportunity.changed", "opportunity/crm/O-1", version="8")
    log.add(first)
    log.add(second)
    log.rules = ProjectRules()
    folded = log.add(retry(parked=first.id))
    assert asked(folded) == ["project.create", "task.create", "task.create"]
    assert [(o.ref, o.state) for o in folded.outputs if isinstance(o, SettledEvent)] == [
        (f"event/{first.id}", "done"),
        (f"event/{second.id}", "done"),
    ]
    assert [type_ for type_, _ in log.rules.seen] == ["crm.opportunity.won", "crm.opportunity.changed"]
    assert log.case is not None
    assert log.case.held == ()
    assert log.case.entities["opportunity/crm/O-1"].version == "8"


def test_a_retry_that_fails_again_keeps_everything_in_its_place() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won())
    log.add(event("crm.opportunity.changed", "opportunity/crm/O-1", version="8"))
    folded = log.add(retry(parked=won().id))
    assert not folded.failed, "a person asked: however many fail so, it is no bad release"
    assert parked(folded) == [(f"event/{won().id}", "HUB-E6005")]
    assert log.case is not None
    assert [held.offset for held in log.case.held] == [0, 1]


@pytest.mark.parametrize("kind", ["retried", "discarded"])
def test_an_entry_that_the_case_does_not_hold_is_closed(kind: str) -> None:
    """It was told of by a worker that died before its state was kept; folded again, under mended rules, it went well."""
    log = Log(ProjectRules())
    log.add(won())
    folded = log.add(retry(parked=won().id, kind=kind))
    assert [(o.ref, o.state) for o in folded.outputs if isinstance(o, SettledEvent)] == [(f"event/{won().id}", "done")]


def test_a_discarded_event_is_left_out_and_the_rest_goes_on() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won())
    log.add(event("crm.opportunity.changed", "opportunity/crm/O-1", version="8"))
    folded = log.add(retry(parked=won().id, kind="discarded"))
    assert [(o.ref.split("/")[0], o.state) for o in folded.outputs if isinstance(o, SettledEvent)] == [
        ("event", "discarded"),
        ("event", "done"),
    ]
    assert asked(folded) == []
    assert log.case is not None
    assert log.case.held == ()


def test_a_parked_event_delivered_twice_is_parked_once() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won(sequence="1", outbox="a"))
    assert log.add(won(sequence="1", outbox="a")).outputs == ()


def test_bytes_that_are_no_event_park_and_their_key_names_the_case_that_waits() -> None:
    for poison in (b"", b"\xff\xfe", b"{", b"[]", b'{"specversion":"1.0"}', b'"x"', b"null"):
        log = Log(ProjectRules())
        assert parked(log.add(poison, b"opportunity/crm/O-1")) == [("record/hub.events/0/0", "HUB-E6001")]
        assert parked(log.add(won())) == [(f"event/{won().id}", CASE_WAITS)]
        assert log.case is not None
        assert log.case.id == "opportunity/crm/O-1"


def test_a_poison_record_without_a_key_blocks_nobody() -> None:
    folded = fold(None, Record("hub.events", 3, 17, None, b"{"), ProjectRules(), nothing)
    assert parked(folded) == [("record/hub.events/3/17", "HUB-E6001")]
    assert folded.case is None


def test_an_event_under_another_cases_key_is_parked() -> None:
    log = Log(ProjectRules())
    assert [code for _, code in parked(log.add(won(), b"opportunity/crm/O-2"))] == ["HUB-E6002"]


def test_what_no_one_foresaw_parks_too_and_says_where() -> None:
    log = Log(ProjectRules(lambda _: KeyError("amount")))
    [(_, code)] = parked(log.add(won()))
    assert code == "HUB-E6005"


def test_a_parked_poison_record_can_be_discarded() -> None:
    log = Log(ProjectRules())
    log.add(b"{", b"opportunity/crm/O-1")
    log.add(won())
    folded = log.add(retry(parked="record/hub.events/0/0", kind="discarded"))
    assert asked(folded) == ["project.create", "task.create", "task.create"]
    assert next((o.ref, o.state) for o in folded.outputs if isinstance(o, SettledEvent)) == (
        "record/hub.events/0/0",
        "discarded",
    )


def test_a_poison_record_that_is_retried_keeps_its_own_name() -> None:
    log = Log(ProjectRules())
    log.add(b"{", b"opportunity/crm/O-1")
    log.add(won())
    assert parked(log.add(retry(parked="record/hub.events/0/0"))) == [("record/hub.events/0/0", "HUB-E6001")]


def breaking_on_huawei(event: AnyEvent) -> Exception | None:
    return BROKEN if event.data.get("account") == "华为" else None


def amount_of(folded: Folded) -> list[str]:
    return [str(o.entity.data["amount"]) for o in folded.outputs if isinstance(o, View)]


def test_a_correction_holds_at_the_next_try_under_the_same_ids() -> None:
    sound, log = Log(ProjectRules()), Log(ProjectRules(breaking_on_huawei))
    expected = [o.command.id for o in sound.add(won()).outputs if isinstance(o, EmitCommand)]
    log.add(won())
    mended = won(data={**won().data, "account": "中兴", "amount": "1"}, id="another id")
    assert log.add(edit(won().id, mended)).outputs == ()
    folded = log.add(retry(parked=won().id))
    assert [o.command.id for o in folded.outputs if isinstance(o, EmitCommand)] == expected
    assert {o.command.causationid for o in folded.outputs if isinstance(o, EmitCommand)} == {won().id}
    assert amount_of(folded) == ["1"]
    assert log.records[0].value == won().to_json(), "what came stays as it is"


def test_of_several_corrections_the_last_holds_and_comes_again_with_every_retry() -> None:
    log = Log(ProjectRules(breaking_on_huawei))
    log.add(won())
    for number, account in enumerate(("华为", "中兴"), 1):
        log.add(edit(won().id, won(data={**won().data, "account": account, "amount": str(number)}), number))
        folded = log.add(retry(parked=won().id).model_copy(update={"id": f"r{number}"}))
    assert amount_of(folded) == ["2"]


def test_a_correction_of_a_poison_record_is_a_whole_event() -> None:
    log = Log(ProjectRules())
    log.add(b"{", b"opportunity/crm/O-1")
    log.add(edit("record/hub.events/0/0", won()))
    folded = log.add(retry(parked="record/hub.events/0/0"))
    assert asked(folded) == ["project.create", "task.create", "task.create"]


def test_a_correction_that_is_no_event_of_the_case_stays_parked() -> None:
    for wrong, code in ((won("O-2"), "HUB-E6002"), (won().model_copy(update={"time": "yesterday"}), "HUB-E6001")):
        log = Log(ProjectRules(breaking_on_won))
        log.add(won())
        log.add(edit(won().id, wrong))
        assert parked(log.add(retry(parked=won().id))) == [(f"event/{won().id}", code)]


def test_a_correction_without_an_event_and_one_of_something_else_change_nothing() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won())
    log.add(edit("another", won()))
    log.add(event("hub.parked.edited", "opportunity/crm/O-1", id="e", data={"parked": won().id, "event": "?"}))
    assert log.case is not None
    assert [held.edit for held in log.case.held] == [None]


def test_the_same_failure_told_twice_can_be_known() -> None:
    log = Log(ProjectRules(breaking_on_won))
    first, again = log.add(won()), log.add(retry(parked=won().id))
    assert [o.mark for folded in (first, again) for o in folded.outputs if isinstance(o, ParkedEvent)] == [0, 1]


def test_a_trial_tells_what_a_retry_would_do_and_changes_nothing() -> None:
    log = Log(ProjectRules(breaking_on_won))
    second = event("crm.opportunity.changed", "opportunity/crm/O-1", version="8")
    log.add(won())
    log.add(second)
    assert log.case is not None
    before = log.case
    (failing,) = try_again(log.case, log.rules, log.reread)
    assert isinstance(failing.done, ParkedEvent)
    assert (failing.ref, failing.done.code) == (f"event/{won().id}", "HUB-E6005")
    first, then = try_again(log.case, ProjectRules(), log.reread)
    assert [each.ref for each in (first, then)] == [f"event/{won().id}", f"event/{second.id}"]
    assert not isinstance(first.done, ParkedEvent)
    assert next(o.command.type for o in first.done.outputs if isinstance(o, EmitCommand)) == "project.create"
    assert log.case == before


def test_a_record_under_a_key_that_can_be_no_case_holds_nobody_up() -> None:
    folded = fold(None, Record("hub.events", 3, 17, b"no reference", b"{"), ProjectRules(), nothing)
    assert parked(folded) == [("record/hub.events/3/17", "HUB-E6001")]
    assert folded.case is None


def test_a_state_without_corrections_is_as_older_versions_have_it() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won())
    assert log.case is not None
    raw = to_json(log.case, 0)
    assert set(orjson.loads(raw)["case"]["held"][0]) == {"offset", "event", "code"}
    assert from_json(raw)[0] == log.case
    log.add(edit(won().id, won()))
    assert from_json(to_json(log.case, 1))[0] == log.case
