"""What comes in is durable once, under its case, in order; what cannot is parked, and its followers wait."""

from __future__ import annotations

import threading

import pytest

from hub.intake.intake import Accepted, Intake, delivery_ref
from hub.kit.connector import Connector, Delivery, Fact, Unmapped
from hub.ledger import cursors, links, parked
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from tests.pushing import NOON, Staff, Telling, crm, deal, delivery, events, fact, open_entries


@pytest.fixture
def intake(ledger: Ledger) -> Intake:
    return Intake(ledger, Staff(), FixedClock(NOON), {"pm": frozenset({"task", "project"})})


def push(intake: Intake, connector: Connector, body: bytes, id_: str = "msg_1") -> Accepted:
    assert connector.receives is not None
    return intake.push(connector.instance.name, connector.receives, delivery(body, id_)).result(10)


def tell(intake: Intake, *told: Fact | Unmapped, id_: str = "msg_1", instance: str = "crm") -> Accepted:
    return intake.push(instance, Telling(told), delivery(id_.encode(), id_)).result(10)


def test_a_push_is_one_event_however_often_it_comes(ledger: Ledger, intake: Intake) -> None:
    answers = {push(intake, crm(), deal(), id_) for id_ in ("msg_1", "msg_1", "msg_2")}
    (told,) = events(ledger)
    assert (told.type, told.subject, told.case) == ("crm.opportunity.won",) + ("opportunity/crm/O-1",) * 2
    assert told.data["owner"] == "person/wang.fang"
    assert {answer.events for answer in answers} == {(told.id,)}


def test_a_push_that_matches_nothing_is_kept_once_as_ignored(ledger: Ledger, intake: Intake) -> None:
    body = deal(kind="viewed")
    answers = [push(intake, crm(), body) for _ in range(3)]
    (told,) = events(ledger)
    assert (told.type, told.subject) == ("hub.delivery.ignored", answers[0].id)
    assert told.data == {"body": body.decode()}


def test_a_long_push_that_matches_nothing_is_cut_and_its_hash_is_not(ledger: Ledger, intake: Intake) -> None:
    intake.push("crm", Telling(), delivery(("字" * 300_000).encode())).result(10)
    (told,) = events(ledger)
    assert len(told.to_json()) < 256 * 1024
    assert set(told.data) == {"body", "cut_from", "sha256"}


def test_what_the_mapping_cannot_tell_is_parked_with_its_bytes_and_without_its_signature(
    ledger: Ledger, intake: Intake
) -> None:
    body = deal(customer=None)
    push(intake, crm(), body)
    (entry,) = open_entries(ledger)
    assert (entry.kind, entry.instance, entry.body) == ("delivery", "crm", body)
    assert "webhook-id" in entry.headers
    assert not [name for name in entry.headers if "signature" in name]
    assert events(ledger) == []


def test_data_that_the_catalogue_refuses_is_parked_with_field_and_reason(ledger: Ledger, intake: Intake) -> None:
    tell(intake, fact(data={**fact().data, "currency": "yuan"}))
    (entry,) = open_entries(ledger)
    assert (entry.code, entry.seen["field"], entry.subject) == ("HUB-E6101", "currency", "opportunity/crm/O-1")


def test_a_mapping_that_breaks_in_an_unforeseen_way_loses_nothing(ledger: Ledger, intake: Intake) -> None:
    class Broken(Telling):
        def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
            raise ZeroDivisionError

    intake.push("crm", Broken(), delivery(b"{}")).result(10)
    (entry,) = open_entries(ledger)
    assert (entry.code, entry.body) == ("HUB-E6105", b"{}")


def test_later_news_of_an_object_wait_behind_what_is_parked_and_others_flow(ledger: Ledger, intake: Intake) -> None:
    tell(intake, Unmapped(b"{}", "HUB-E4223", {"type": "t", "field": "f"}, "opportunity/crm/O-1"), id_="a")
    tell(intake, fact(version="2"), fact("crm.opportunity.changed", "opportunity/crm/O-2"), id_="b")
    assert [entry.code for entry in open_entries(ledger)] == ["HUB-E4223", "HUB-E6104"]
    assert [told.subject for told in events(ledger)] == ["opportunity/crm/O-2"]


def test_pushes_of_one_transaction_are_taken_in_as_each_would_be_alone(ledger: Ledger, intake: Intake) -> None:
    bad = Unmapped(b"{}", "HUB-E4223", {}, "opportunity/crm/O-1")
    asked = [(one, fact(version=str(number))) for number, one in enumerate(("a", "b"), 1)] + [("c", bad)]
    more = [("d", fact(version="3")), ("e", fact("crm.opportunity.changed", "opportunity/crm/O-2"))]
    order = fact("erp.order.confirmed", "order/crm/7", belongs_to="opportunity/crm/O-1")
    go = threading.Event()
    waits = ledger.writer.submit(lambda _: go.wait(10))
    told = [*asked, *more, ("f", order), ("a", fact(version="1")), ("g", fact("erp.order.shipped", "order/crm/7"))]
    answers = [intake.push("crm", Telling((one,)), delivery(id_.encode(), id_)) for id_, one in told]
    go.set()
    waits.result(10)
    assert all(answer.result(10) for answer in answers)
    assert [entry.code for entry in open_entries(ledger)] == ["HUB-E4223", "HUB-E6104"]
    about = [(event.subject.rpartition("/")[2], event.case.rpartition("/")[2]) for event in events(ledger)]
    assert about == [("O-1", "O-1"), ("O-1", "O-1"), ("O-2", "O-2"), ("7", "O-1"), ("7", "O-1")]


def test_a_repeat_of_what_is_in_the_log_already_does_not_wait(ledger: Ledger, intake: Intake) -> None:
    tell(intake, fact(version="1"), id_="a")
    tell(intake, Unmapped(b"{}", "HUB-E4223", {}, "opportunity/crm/O-1"), id_="b")
    tell(intake, fact(version="1"), id_="a")
    assert len(open_entries(ledger)) == 1


def test_what_was_discarded_stays_discarded_when_it_is_sent_again(ledger: Ledger, intake: Intake) -> None:
    bad = Unmapped(b"{}", "HUB-E4223", {}, "opportunity/crm/O-1")
    accepted = tell(intake, bad)
    ledger.writer.run(lambda conn: parked.settle(conn, accepted.id, "discarded", "2026", "spam"))
    tell(intake, bad)
    assert open_entries(ledger) == []


def test_facts_of_one_push_without_versions_are_told_apart(ledger: Ledger, intake: Intake) -> None:
    for _ in range(2):
        tell(intake, fact(version=""), fact(version="", data={**fact().data, "name": "另一个"}))
    assert [told.data["name"] for told in events(ledger)] == ["网关项目", "另一个"]


def test_the_case_of_an_object_is_settled_once(ledger: Ledger, intake: Intake) -> None:
    tell(intake, fact(version="1"), id_="a")
    tell(intake, fact(version="2", belongs_to="account/crm/A-1"), id_="b")
    tell(intake, fact("erp.order.confirmed", "order/crm/7", belongs_to="opportunity/crm/O-1"), id_="c")
    tell(intake, fact("erp.order.shipped", "order/crm/7"), id_="d")
    assert {told.case for told in events(ledger)} == {"opportunity/crm/O-1"}


def test_an_object_follows_the_case_that_its_effect_was_linked_to(ledger: Ledger, intake: Intake) -> None:
    ledger.writer.run(lambda conn: links.link(conn, "task/pm/T-1", "opportunity/crm/O-1", "c-1"))
    tell(intake, fact("work.task.completed", "task/pm/T-1"), instance="pm")
    (told,) = events(ledger)
    assert told.case == told.correlationid == "opportunity/crm/O-1"


def test_a_page_moves_its_cursor_with_its_facts_or_not_at_all(ledger: Ledger, intake: Intake) -> None:
    page: list[Fact | Unmapped] = [fact(version="1"), Unmapped(b"raw", "HUB-E4223", {}, "opportunity/crm/O-2")]
    assert not intake.page("crm", "deals", page, "c-1", lambda _: False).result(10)
    with ledger.reading() as conn:
        assert (cursors.get(conn, "crm", "deals"), len(events(ledger)), len(open_entries(ledger))) == (None, 0, 0)
    for _ in range(2):
        assert intake.page("crm", "deals", page, "c-1", lambda _: True).result(10)
    with ledger.reading() as conn:
        assert cursors.get(conn, "crm", "deals") == "c-1"
    assert (len(events(ledger)), len(open_entries(ledger))) == (1, 1)


def test_a_delivery_is_named_by_its_senders_id_and_its_bytes() -> None:
    receiver = Telling()
    first, again, other = (delivery_ref("crm", receiver, delivery(body)) for body in (b"1", b"1", b"2"))
    assert first == again != other
    assert first.startswith("delivery/crm/msg_1~")
    assert delivery_ref("crm", receiver, delivery(b"1", "a b/c")).count("/") == 2
