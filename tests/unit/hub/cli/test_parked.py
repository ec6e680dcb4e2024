"""`hub parked`: listed by cause, shown with bytes, asked for where the programs look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from hub.home import Home
from hub.ledger import commands, outbox, parked
from hub.ledger.ledger import Ledger
from schemas.event import Event
from tests.events import AT, command, won
from tests.unit.hub.cli.conftest import Hub

DEAL = "opportunity/crm/O-1"


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    opened = Ledger(Home.load(home).ledger_url)
    yield opened
    opened.close()


def aside(ledger: Ledger, ref: str, kind: str = "event", **more: Any) -> int:
    """Park something; its number."""
    row = {
        "ref": ref, "kind": kind, "case_id": DEAL, "subject": DEAL, "code": "HUB-E3140", "seen": {"role": "chief", "near": "lead"},
        "place": "rules/won_deal.yaml:7:30", "rule": "won", "body": b'{"a": 1}', "parked_at": AT, **more,
    }  # fmt: skip
    ledger.writer.run(lambda conn: parked.park(conn, row))
    with ledger.reading() as conn:
        found = parked.find(conn, ref)
    assert found is not None
    return int(found.id)


def parked_command(ledger: Ledger, number: int) -> None:
    asked = command(won(f"O-{number}"))

    def work(conn: Connection) -> None:
        table = commands.commands
        commands.accept(conn, asked, asked.to_json(), AT)
        conn.execute(table.update().where(table.c.id == asked.id).values(state="PARKED"))

    ledger.writer.run(work)
    aside(ledger, f"command/{asked.id}", "command", case_id=asked.case)


def recorded(ledger: Ledger, type_: str) -> list[Event]:
    with ledger.reading() as conn:
        rows = conn.execute(outbox.outbox.select().where(outbox.outbox.c.type == type_)).all()
    return [Event.from_json(row.body) for row in rows]


def state(ledger: Ledger, ref: str) -> str:
    with ledger.reading() as conn:
        found = parked.find(conn, ref)
    assert found is not None
    return str(found.state)


def test_nothing_is_parked_where_nothing_ever_ran(home: Path, hub: Hub) -> None:
    assert hub("parked", "list", "--home", home, "--json").json == []
    assert not (home / ".hub").exists()


def test_entries_of_one_cause_stand_together(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in range(3):
        aside(ledger, f"event/e{number}", subject=f"opportunity/crm/O-{number}")
    aside(
        ledger,
        "delivery/crm/1",
        "delivery",
        code="HUB-E6105",
        seen={"instance": "crm", "reason": "KeyError"},
        place=None,
    )
    told = hub("parked", "list", "--home", home).out
    assert told.count("nobody holds the role 'chief'") == 1
    assert "3 entries" in told
    assert "did you mean lead?" in told
    assert told.index("HUB-E3140") < told.index("HUB-E6105")
    listed = hub("parked", "list", "--home", home, "--json").json
    assert [entry["kind"] for entry in listed] == ["event", "event", "event", "delivery"]
    assert listed[0]["case"] == DEAL
    assert hub("parked", "list", "--case", "opportunity/crm/O-9", "--home", home, "--json").json == []


def test_an_entry_is_found_by_number_ref_and_id(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "event/e1")
    for name in (number, "event/e1", "e1"):
        assert hub("parked", "show", name, "--home", home, "--json").json["ref"] == "event/e1"
    told = hub("parked", "show", number, "--home", home).out
    assert '"a": 1' in told
    assert "rules/won_deal.yaml:7:30" in told
    ran = hub("parked", "show", "e2", "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6203")


def test_a_case_is_asked_for_once_and_stays_parked_until_the_hub_runs(home: Path, hub: Hub, ledger: Ledger) -> None:
    aside(ledger, "event/e1")
    aside(ledger, "event/e2", code="HUB-E6010", seen={"behind": "e1"}, place=None, rule=None)
    ran = hub("parked", "retry", "--all", "--by", "li.lei", "--home", home, "--json")
    assert ran.code == 6
    assert [entry["ref"] for entry in ran.json["parked"]] == ["event/e1", "event/e2"]
    (asked,) = recorded(ledger, "hub.parked.retried")
    assert (asked.subject, asked.case, asked.data) == (DEAL, DEAL, {"parked": "e1", "reason": None, "by": "li.lei"})


def test_a_record_of_a_case_is_named_by_its_whole_ref(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "record/hub.events/3/7", subject=None)
    assert hub("parked", "discard", number, "--reason", "junk", "--home", home).code == 6
    (asked,) = recorded(ledger, "hub.parked.discarded")
    assert asked.data["parked"] == "record/hub.events/3/7"
    assert asked.case == DEAL


@pytest.mark.parametrize("case", [None, "no reference"])
def test_what_belongs_to_no_case_can_only_be_discarded(home: Path, hub: Hub, ledger: Ledger, case: str | None) -> None:
    number = aside(ledger, "record/hub.events/3/7", case_id=case, subject=None)
    ran = hub("parked", "retry", number, "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6205")
    assert hub("parked", "retry", "--all", "--home", home, "--json").json["asked"] == 0
    assert hub("parked", "discard", number, "--reason", "junk", "--home", home).code == 0
    assert state(ledger, "record/hub.events/3/7") == "discarded"
    (told,) = recorded(ledger, "hub.parked.discarded")
    assert (told.subject, told.data["reason"]) == ("record/hub.events/3/7", "junk")
    ran = hub("parked", "discard", number, "--reason", "again", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6204"


def test_a_command_is_reopened_or_given_up(home: Path, hub: Hub, ledger: Ledger) -> None:
    for number in (1, 2):
        parked_command(ledger, number)
    first, second = (command(won(f"O-{number}")).id for number in (1, 2))
    ran = hub("parked", "retry", first, "--home", home, "--json")
    assert (ran.code, ran.json["working"]) == (0, [first])
    assert hub("parked", "discard", second, "--reason", "no", "--home", home).code == 0
    with ledger.reading() as conn:
        rows = [commands.get(conn, each) for each in (first, second)]
    assert [row.state for row in rows if row is not None] == ["NEW", "DISCARDED"]


def test_a_delivery_is_marked_for_the_program_that_keeps_it(home: Path, hub: Hub, ledger: Ledger) -> None:
    number = aside(ledger, "delivery/crm/1", "delivery", instance="crm", case_id=None)
    assert hub("parked", "retry", number, "--by", "me", "--home", home).code == 6
    with ledger.reading() as conn:
        row = parked.get(conn, number)
    assert row is not None
    assert (row.asked, row.asked_by) == ("retry", "me")


def test_which_entries_must_be_said(home: Path, hub: Hub) -> None:
    assert hub("parked", "retry", "--home", home).code == 2
    assert hub("parked", "retry", "1", "--all", "--home", home).code == 2
