"""Parked deliveries go on when a person asks: through the present mapping, in order, with a result that can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import orjson
import pytest

from hub.errors import RejectedError
from hub.intake import deferred_intake
from hub.intake.deferred_intake import Redelivery
from hub.intake.intake import Intake, fact_json
from hub.kit.connector import Connector, Delivery, Fact, Instance, Page, Unmapped
from hub.ledger import parked, parked_deliveries
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ledger.parked_events import OperatorRequest
from hub.ops.previewing import of_entries
from hub.runtime.clock import FixedClock
from schemas.envelope import Event
from tests.pushing import NOON, Staff, Telling, crm, deal, delivery, events, fact, open_entries

RIGHT = {"name": "${body.deal.title}", "account": "${body.deal.customer}", "amount": "1", "currency": "CNY"}
WRONG = RIGHT | {"account": "${body.deal.client}"}


@dataclass
class World:
    """A ledger, its door, and one connector whose mapping can be corrected."""

    ledger: Ledger
    intake: Intake
    connectors: dict[str, Connector]

    def push(self, body: bytes, id_: str) -> None:
        receiver = self.connectors["crm"].receives
        assert receiver is not None
        self.intake.push("crm", receiver, delivery(body, id_)).result(10)

    def ask(self, what: str, *entries: int) -> int:
        for entry in entries or [entry.id for entry in open_entries(self.ledger)]:
            self.ledger.writer.run(partial(parked.request, row=entry, action=what, by="wang.fang", reason="why not"))
        return Redelivery(self.ledger, self.intake, self.connectors, FixedClock(NOON)).answer(lambda _: True)

    def codes(self) -> list[str]:
        return [entry.code for entry in open_entries(self.ledger)]

    def told(self) -> list[tuple[str, str | None]]:
        return [(one.subject, one.subjectversion) for one in events(self.ledger) if not one.type.startswith("hub.")]

    def notes(self) -> list[tuple[str, str]]:
        return [(one.type, str(one.data["by"])) for one in events(self.ledger) if one.type.startswith("hub.parked")]


@pytest.fixture
def world(ledger: Ledger) -> World:
    return World(ledger, Intake(ledger, Staff(), FixedClock(NOON)), {"crm": crm(data=WRONG)})


def test_after_the_mapping_is_corrected_all_go_on_in_order(world: World) -> None:
    for version in (1, 2, 3):
        world.push(deal(1, version=version), f"m-{version}")
    world.push(deal(2, version=1), "m-9")
    assert len(world.codes()) == 4
    world.connectors["crm"] = crm(data=RIGHT)
    world.ask("retry")
    assert world.codes() == []
    assert world.told() == [("opportunity/crm/O-1", str(n)) for n in (1, 2, 3)] + [("opportunity/crm/O-2", "1")]
    assert world.notes() == [("hub.parked.retried", "wang.fang")] * 4


def test_a_retry_of_the_first_draws_along_those_that_only_waited(world: World) -> None:
    world.push(deal(1, version=1), "m-1")
    world.connectors["crm"] = crm(data=RIGHT)
    world.push(deal(1, version=2), "m-2")
    world.push(deal(1, version=3), "m-3")
    first = open_entries(world.ledger)[0]
    assert world.codes()[1:] == ["HUB-E6104"] * 2
    world.ask("retry", first.id)
    assert world.codes() == []
    assert [version for _, version in world.told()] == ["1", "2", "3"]


def test_a_retry_that_fails_again_stays_open_with_its_newest_reason_and_holds_the_rest(world: World) -> None:
    world.push(deal(1, version=1), "m-1")
    world.connectors["crm"] = crm(data=RIGHT | {"currency": "${body.deal.coin}"})
    world.push(deal(1, version=2), "m-2")
    world.ask("retry")
    entries = open_entries(world.ledger)
    assert len(entries) == 2
    assert {entry.asked for entry in entries} == {None}
    assert "coin" in str(entries[0].seen)
    assert world.told() == []


def test_one_that_waits_cannot_overtake(world: World) -> None:
    world.push(deal(1, version=1), "m-1")
    world.connectors["crm"] = crm(data=RIGHT)
    world.push(deal(1, version=2), "m-2")
    world.ask("retry", open_entries(world.ledger)[1].id)
    assert len(world.codes()) == 2
    assert world.told() == []


def test_a_discard_is_told_and_lets_the_others_go_on(world: World) -> None:
    world.push(deal(1, version=1), "m-1")
    world.connectors["crm"] = crm(data=RIGHT)
    world.push(deal(1, version=2), "m-2")
    first = open_entries(world.ledger)[0]
    world.ask("discard", first.id)
    assert world.codes() == []
    assert [version for _, version in world.told()] == ["2"]
    (note,) = [one for one in events(world.ledger) if one.type == "hub.parked.discarded"]
    assert (note.subject, note.data) == (
        first.ref,
        {"parked": first.ref, "reason": "why not", "by": "wang.fang"},
    )
    with world.ledger.reading() as conn:
        entry = parked.get(conn, first.id)
    assert entry is not None
    assert (entry.state, entry.reason) == ("discarded", "why not")


def test_another_programs_job_is_left_alone(world: World) -> None:
    world.push(deal(1), "m-1")
    (entry,) = open_entries(world.ledger)
    world.ledger.writer.run(lambda conn: parked.request(conn, entry.id, "retry"))
    world.connectors["crm"] = crm(data=RIGHT)
    Redelivery(world.ledger, world.intake, world.connectors, FixedClock(NOON)).answer(lambda _: False)
    assert [entry.asked for entry in open_entries(world.ledger)] == ["retry"]


def test_without_its_connector_an_entry_stays_and_says_so(world: World) -> None:
    world.push(deal(1), "m-1")
    world.connectors.clear()
    world.ask("retry")
    assert world.codes() == ["HUB-E6107"]


class Reads:
    """A connector that polls, and may be able to tell a raw record again."""

    streams = ("deals",)
    interval = 1.0

    def poll(self, stream: str, cursor: str | None) -> Page:
        raise RejectedError("HUB-E4005", instance="crm", reason="not asked here")


def polled(world: World, *facts: Fact | Unmapped) -> None:
    assert world.intake.page("crm", "deals", facts, "c-1", lambda _: True).result(10)


def test_a_polled_record_is_told_again_where_its_connector_can(world: World) -> None:
    polled(world, Unmapped(b"raw", "HUB-E4307", {}, "opportunity/crm/O-1"), fact(version="2"))
    assert world.codes() == ["HUB-E4307", "HUB-E6104"]
    instance = Instance("crm", "reads", {})
    world.connectors["crm"] = Connector(instance, polls=Reads())
    world.ask("retry")
    assert world.codes() == ["HUB-E6106", "HUB-E6104"]
    world.connectors["crm"] = Connector(instance, polls=Reads(), reread=lambda raw: (fact(version=raw.decode()),))
    world.ask("retry")
    assert world.codes() == []
    assert [version for _, version in world.told()] == ["raw", "2"]


def test_a_parked_fact_comes_back_as_it_was(world: World) -> None:
    polled(world, Unmapped(b"raw", "HUB-E4307", {}, "opportunity/crm/O-1"))
    polled(world, fact(version="2", actor="U-3", belongs_to="account/crm/A-1", origin="c-1"))
    world.connectors["crm"] = Connector(Instance("crm", "reads", {}), polls=Reads())
    world.ask("discard", open_entries(world.ledger)[0].id)
    (told,) = [one for one in events(world.ledger) if one.type == "crm.opportunity.changed"]
    assert (told.actor, told.origin, told.case) == ("person/wang.fang", "c-1", "account/crm/A-1")
    assert told.data["owner"] == "person/wang.fang"


def test_what_breaks_on_the_way_stays_parked(world: World) -> None:
    world.push(deal(1), "m-1")

    class Broken:
        def verify(self, delivery: Delivery) -> None:
            """Not asked."""

        def id_of(self, delivery: Delivery) -> str | None:
            return delivery.headers.get("webhook-id")

        def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
            raise ZeroDivisionError

    world.connectors["crm"] = Connector(Instance("crm", "http", {}), receives=Broken())
    world.ask("retry")
    assert world.codes() == ["HUB-E6105"]


def correct(world: World, entry: AnyRow, body: bytes) -> None:
    asking = OperatorRequest(NOON, "wang.fang", "their export was wrong")
    assert world.ledger.writer.run(partial(parked_deliveries.edit, entry=entry, body=body, request=asking))


def test_a_corrected_push_has_the_ids_of_what_came(world: World) -> None:
    whole = {"type": "deal.won", "at": "2026-11-20T10:00:00+08:00", "deal": {"id": "O-1", "title": "T"}}
    world.connectors["crm"] = crm(data=RIGHT)
    world.push(orjson.dumps(whole), "m-1")
    (entry,) = open_entries(world.ledger)
    correct(world, entry, deal(1))
    world.ask("retry")
    assert world.codes() == []
    assert world.told() == [("opportunity/crm/O-1", "7")]
    (note,) = [one for one in events(world.ledger) if one.type == "hub.parked.edited"]
    assert (note.subject, note.data["by"], note.data["body"]) == (entry.ref, "wang.fang", deal(1).decode())
    world.push(orjson.dumps(whole), "m-1")
    assert world.codes() == [], "the push that comes again is dealt with already"
    with world.ledger.reading() as conn:
        now = parked.get(conn, entry.id)
    assert now is not None
    assert (now.state, now.body) == ("done", orjson.dumps(whole))


def test_a_correction_without_a_version_keeps_the_id_that_the_body_gave(world: World) -> None:
    told = Telling((fact(version=""),))
    world.connectors["crm"] = Connector(Instance("crm", "http", {}), receives=told)
    world.intake.push("crm", told, Delivery({}, b'{"first": 1}', NOON)).result(10)
    (before,) = [one.id for one in events(world.ledger)]
    items = world.intake.items("crm", told, Delivery({}, b'{"first": 1}', NOON), b'{"corrected": 1}')
    assert [(one.id, kept.body) for one, kept in items if isinstance(one, Event)] == [(before, b'{"first": 1}')]


def test_a_correction_that_still_cannot_be_told_stays_open_under_its_ref(world: World) -> None:
    world.push(b'{"type": "deal.won", "deal": {}}', "m-1")
    (entry,) = open_entries(world.ledger)
    correct(world, entry, b'{"type": "deal.won", "deal": {"id": "O-2"}}')
    world.ask("retry")
    (left,) = open_entries(world.ledger)
    assert (left.ref, left.tries, left.edits) == (entry.ref, 2, 1)


def test_a_corrected_fact_is_taken_in(world: World) -> None:
    polled(world, fact(data={"name": "T"}))
    (entry,) = open_entries(world.ledger)
    correct(world, entry, fact_json(fact()))
    world.connectors["crm"] = Connector(Instance("crm", "reads", {}), polls=Reads())
    world.ask("retry")
    assert world.told() == [("opportunity/crm/O-1", "1")]


def test_so_many_are_answered_at_a_time_that_others_do_not_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferred_intake, "MAX_BATCH", 2)
    for number in range(3):
        world.push(deal(number), f"m-{number}")
    world.connectors["crm"] = crm(data=RIGHT)
    assert world.ask("retry") == 2
    assert len(world.codes()) == 1


def test_a_preview_tells_what_a_retry_would_and_keeps_nothing(world: World) -> None:
    world.push(deal(1), "m-1")
    (entry,) = open_entries(world.ledger)
    (told,) = of_entries(world.ledger, world.connectors, Staff(), [entry.id], set())
    assert "client" in str(told["error"])
    world.connectors["crm"] = crm(data=RIGHT)
    (told,) = of_entries(world.ledger, world.connectors, Staff(), [entry.id], set())
    assert [(one["type"], one["subject"]) for one in told["events"]] == [("crm.opportunity.won", "opportunity/crm/O-1")]
    assert (world.told(), len(world.codes())) == ([], 1)
