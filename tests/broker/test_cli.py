"""The commands on a hub that runs, as the person who keeps it types them."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.cli.init import make
from tests.acceptance.running import HUB, RunningHub, running_hub, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

BOARDS = {"tasks", "deals", "inbox", "entities", "trail"}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on a home from `hub init`; its tests share it, each with deals of its own."""
    root = tmp_path_factory.mktemp("cli")
    make(root / "home", "crm-to-project")
    with running_hub(root / "home", root / "data", {}) as running:
        yield running


def win(hub: RunningHub, number: int, amount: str = "880000") -> None:
    """Push a won deal with the home's own script."""
    script = hub.home / "win_a_deal.sh"
    done = subprocess.run(
        [script, str(number), amount], env=hub.environment, capture_output=True, encoding="utf-8", check=True
    )
    assert "HTTP 202" in done.stdout


def case(number: int) -> str:
    return f"opportunity/crm/O-{number}"


def follows(hub: RunningHub, number: int, type_: str, count: int) -> list[dict[str, Any]]:
    """Wait until the case has so many events of this type; they."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = hub.json("events", "tail", "--case", case(number), "--type", type_, "-n", "50")["events"]
        return len(found) >= count

    until(there, 60, f"{count} {type_} in {case(number)}")
    return [each["event"] for each in found]


def parked(hub: RunningHub, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.json("parked", "list", "--case", case(number))
    return found


def edit(file: Path, before: str, after: str) -> None:
    told = file.read_text("utf-8")
    assert before in told
    file.write_text(told.replace(before, after), "utf-8")


def test_a_won_deal_is_seen_by_every_command(hub: RunningHub) -> None:
    win(hub, 1)
    made = follows(hub, 1, "work.task.created", 2)
    until(lambda: bool(hub.json("status")["processor"]["lag"] == 0), 30, "nothing is left to fold")
    told = hub.json("status")
    assert told["running"]
    assert {name: program["state"] for name, program in told["programs"].items()} == dict.fromkeys(
        ("processor", "connectors", "projector", "broker"), "ready"
    )
    assert set(told["boards"]) == BOARDS
    assert told["accepted"] == told["processor"]["events"] > 5
    assert told["commands"]["done"] >= 4

    shown = hub.json("events", "show", made[0]["id"])
    assert shown["event"]["subject"] == made[0]["subject"]
    assert len(shown["places"]) == 1
    assert shown["coverage"]["read"] == shown["coverage"]["total"]
    assert hub.run("events", "show", "nope").returncode == 1

    why = hub.run("why", made[0]["subject"]).stdout
    assert "crm.opportunity.won" in why
    assert "A won deal becomes a delivery project (won-deal-to-delivery" in why
    assert "event.data.amount = 880000" in why


def test_the_audit_and_the_boards_agree_with_the_log(hub: RunningHub) -> None:
    win(hub, 2)
    follows(hub, 2, "work.task.created", 2)
    until(lambda: hub.run("audit").returncode == 0, 60, "the audit holds")
    report = hub.json("audit")
    assert report["counts"]["accepted"] == report["counts"]["in_the_log"]
    assert {board["board"] for board in report["boards"] if board["equal"]} == BOARDS
    assert hub.run("rebuild", "--all", "--verify").returncode == 0
    rebuilt = hub.json("rebuild", "deals")
    assert rebuilt["ok"]
    assert [board["board"] for board in rebuilt["boards"]] == ["deals"]
    assert hub.run("rebuild", "nope").returncode == 2


def test_a_rule_that_fails_is_mended_retried_and_told_of(hub: RunningHub) -> None:
    rule = hub.home / "rules" / "won_deal.yaml"
    edit(rule, "double(event.data.amount) >= 10000.0", "case.entities[event.subject].data.region == 'north'")
    until(lambda: _sees(hub, "north"), 30, "the rule is read again")
    win(hub, 3)
    until(lambda: len(parked(hub, 3)) == 1, 30, "the deal is parked")
    (entry,) = parked(hub, 3)
    assert (entry["kind"], entry["code"], entry["rule"]) == ("event", "HUB-E3120", "won-deal-to-delivery")

    again = hub.run("parked", "retry", str(entry["id"]))
    assert again.returncode == 6
    assert "rules/won_deal.yaml:5:" in again.stdout

    edit(rule, "case.entities[event.subject].data.region == 'north'", "double(event.data.amount) >= 10000.0")
    done = hub.run("parked", "retry", str(entry["id"]), "--json")
    assert (done.returncode, parked(hub, 3)) == (0, [])
    follows(hub, 3, "work.task.created", 2)
    assert [event["data"]["parked"] for event in follows(hub, 3, "hub.parked.retried", 2)] == [
        entry["ref"].partition("/")[2]
    ] * 2
    assert hub.run("parked", "retry", str(entry["id"])).returncode == 1


def test_an_event_is_given_up_and_its_case_goes_on(hub: RunningHub) -> None:
    rule = hub.home / "rules" / "won_deal.yaml"
    edit(rule, "double(event.data.amount) >= 10000.0", "case.entities[event.subject].data.region == 'south'")
    until(lambda: _sees(hub, "south"), 30, "the rule is read again")
    win(hub, 4)
    until(lambda: len(parked(hub, 4)) == 1, 30, "the deal is parked")
    (entry,) = parked(hub, 4)
    assert hub.run("parked", "discard", str(entry["id"]), "--reason", "a test deal", "--by", "li.lei").returncode == 0
    (told,) = follows(hub, 4, "hub.parked.discarded", 1)
    assert told["data"] == {"parked": told["data"]["parked"], "reason": "a test deal", "by": "li.lei"}
    assert hub.json("parked", "show", entry["ref"])["state"] == "discarded"
    edit(rule, "case.entities[event.subject].data.region == 'south'", "double(event.data.amount) >= 10000.0")


def _sees(hub: RunningHub, word: str) -> bool:
    """Whether the processor runs by rules that hold this word."""
    kept = orjson.loads((hub.data / "rules.json").read_bytes())
    return word.encode() in base64.b64decode(kept["rules/won_deal.yaml"])


def test_a_following_reader_gets_what_comes(hub: RunningHub) -> None:
    win(hub, 5, "7")
    follows(hub, 5, "crm.opportunity.won", 1)
    wanted = ["--type", "crm.opportunity.won", "-n", "1", "-f", "--json", "--home", str(hub.home)]
    with subprocess.Popen([*HUB, "events", "tail", *wanted], env=hub.environment, stdout=subprocess.PIPE) as following:
        try:
            assert following.stdout is not None
            assert case(5).encode() in following.stdout.readline()
            win(hub, 6, "8")
            assert case(6).encode() in following.stdout.readline()
        finally:
            following.terminate()


def test_doctor_and_connectors_on_a_hub_that_runs(hub: RunningHub) -> None:
    checks = {check["check"]: check["level"] for check in hub.json("doctor")["checks"]}
    assert "FAIL" not in checks.values()
    assert checks["web port"] == checks["broker"] == "PASS"
    assert hub.run("connectors", "check").returncode == 0
