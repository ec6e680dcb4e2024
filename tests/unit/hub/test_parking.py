"""A record that fails is parked with its reason; its case waits, and goes on in order when it is taken up again."""

from __future__ import annotations

from collections.abc import Sequence

from hub.case import Case
from hub.errors import RejectedError
from hub.event_log import Record
from hub.outputs import Ask, Parked, Settled
from hub.parking import WAITS, Folded, fold
from schemas.event import Event
from tests.events import ProjectRules, event, record, won

BROKEN = RejectedError("HUB-E6005", reason="no amount")


def nothing(_offsets: Sequence[int]) -> list[bytes]:
    raise AssertionError("nothing is parked, so nothing is read again")


def retry(case: str = "opportunity/crm/O-1", parked: str = "", kind: str = "retried") -> Event:
    return event(f"hub.parked.{kind}", case, id=f"{kind}-{parked}", data={"parked": parked})


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
    return [(output.ref, output.code) for output in folded.outputs if isinstance(output, Parked)]


def asked(folded: Folded) -> list[str]:
    return [output.command.type for output in folded.outputs if isinstance(output, Ask)]


def breaking_on_won(event: Event) -> Exception | None:
    return BROKEN if event.type == "crm.opportunity.won" else None


def test_a_rule_that_fails_parks_its_event_and_the_case_waits() -> None:
    log = Log(ProjectRules(breaking_on_won))
    first, second = won(), event("crm.opportunity.changed", "opportunity/crm/O-1", version="8")
    assert parked(log.add(first)) == [(f"event/{first.id}", "HUB-E6005")]
    assert parked(log.add(second)) == [(f"event/{second.id}", WAITS)]
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
    assert [(o.ref, o.state) for o in folded.outputs if isinstance(o, Settled)] == [
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
    assert folded.failed
    assert parked(folded) == [(f"event/{won().id}", "HUB-E6005")]
    assert log.case is not None
    assert [held.offset for held in log.case.held] == [0, 1]


def test_a_discarded_event_is_left_out_and_the_rest_goes_on() -> None:
    log = Log(ProjectRules(breaking_on_won))
    log.add(won())
    log.add(event("crm.opportunity.changed", "opportunity/crm/O-1", version="8"))
    folded = log.add(retry(parked=won().id, kind="discarded"))
    assert [(o.ref.split("/")[0], o.state) for o in folded.outputs if isinstance(o, Settled)] == [
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
        assert parked(log.add(won())) == [(f"event/{won().id}", WAITS)]
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
    assert next((o.ref, o.state) for o in folded.outputs if isinstance(o, Settled)) == (
        "record/hub.events/0/0",
        "discarded",
    )


def test_a_poison_record_that_is_retried_keeps_its_own_name() -> None:
    log = Log(ProjectRules())
    log.add(b"{", b"opportunity/crm/O-1")
    log.add(won())
    assert parked(log.add(retry(parked="record/hub.events/0/0"))) == [("record/hub.events/0/0", "HUB-E6001")]
