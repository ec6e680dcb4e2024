"""`hub rules`: listed, tried, and run on events without asking anybody."""

from __future__ import annotations

from pathlib import Path

from hub.home import Home
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from tests.events import won
from tests.unit.hub.cli.conftest import Hub

SMALL = (
    '{"type": "crm.opportunity.won", "subject": "opportunity/crm/O-9", "time": "2026-11-20T02:00:00Z", '
    '"data": {"name": "A", "account": "B", "amount": "5", "currency": "CNY"}}'
)


def test_every_rule_is_listed_with_when_what_and_whose(home: Path, hub: Hub) -> None:
    listed = hub("rules", "list", "--home", home, "--json").json
    assert [rule["rule"] for rule in listed] == ["project-done-to-invoice", "won-deal-to-delivery"]
    assert listed[1]["do"] == ["project.create@desk", "task.create@desk", "task.create@desk", "message.send@desk"]
    told = hub("rules", "list", "--home", home).out
    assert "A won deal becomes a delivery project" in told
    assert "sales-ops" in told


def test_a_failed_trial_says_what_was_expected_and_fails(home: Path, hub: Hub) -> None:
    assert hub("rules", "test", "--home", home).code == 0
    file = home / "rules" / "won_deal.test.yaml"
    file.write_text(file.read_text().replace("title: Kick-off Gateway", "title: Closing"))
    ran = hub("rules", "test", "--home", home)
    assert ran.code == 1
    assert "rules/won_deal.test.yaml:10:30" in ran.out
    assert "should be 'Closing', but is 'Kick-off Gateway'" in ran.out
    told = hub("rules", "test", "--home", home, "--json").json
    assert (told["ok"], told["passed"], told["failed"]) == (False, 1, 1)


def test_broken_rules_are_an_error_of_the_settings(home: Path, hub: Hub) -> None:
    (home / "rules" / "won_deal.yaml").write_text("rule: x\n")
    assert hub("rules", "list", "--home", home).code == 3


def test_an_event_of_a_file_is_tried(home: Path, hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "event.json"
    file.write_text(SMALL)
    ran = hub("rules", "dry-run", file, "--home", home)
    assert ran.code == 0
    assert "✘ double(event.data.amount) >= 10000.0   event.data.amount = 5" in ran.out
    file.write_text(SMALL.replace('"5"', '"50000"'))
    told = hub("rules", "dry-run", "--given", file, "--home", home, "--json").json
    (verdict,) = told[0]["rules"]
    assert [command["type"] for command in verdict["commands"]] == [
        "project.create",
        "task.create",
        "task.create",
        "message.send",
    ]
    assert not (home / ".hub").exists()


def test_an_event_that_came_is_tried_on_its_case(home: Path, hub: Hub) -> None:
    ledger = Ledger(Home.load(home).ledger_url)
    first, again = won(), won(version="8")
    ledger.writer.run(lambda conn: outbox.record(conn, [first, again], "crm"))
    ledger.close()
    outcomes = [
        hub("rules", "dry-run", "--event", each.id, "--home", home, "--json").json[0]["rules"][0]["outcome"]
        for each in (first, again)
    ]
    assert outcomes == ["asks", "repeat"]
    ran = hub("rules", "dry-run", "--event", "nope", "--home", home)
    assert ran.error and ran.error.code == "HUB-E6206"


def test_one_source_of_events_must_be_named(home: Path, hub: Hub, tmp_path: Path) -> None:
    assert hub("rules", "dry-run", "--home", home).code == 2
    assert hub("rules", "dry-run", tmp_path / "a", "--event", "b", "--home", home).code == 2
