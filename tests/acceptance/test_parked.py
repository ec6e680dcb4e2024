"""What cannot go on is parked with its reason and place; its case waits, the others flow, and after the fix it goes on in order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from hub.log.event_log import Outgoing
from hub.log.kafka_log import KafkaLog
from tests.acceptance.acme import SECRETS, Sender, deal, environment
from tests.acceptance.outside import Outside
from tests.acceptance.running import RunningHub, running_hub, until

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
STRICT = """rule: large-deal-to-finance
title: {zh: 大单知会财务, en: Finance hears of large deals}
owner: finance
when: crm.opportunity.won
if: double(event.data.amount) >= 5000000.0
do:
  - message.send: {in: im, to: "${role('finance-clerk')}", text: "大单 ${case.entities[event.subject].data.discount}"}
"""


@pytest.fixture
def outside() -> Iterator[Outside]:
    """Targets that behave."""
    served = Outside()
    yield served
    served.stop()


@pytest.fixture
def hub(tmp_path: Path, outside: Outside) -> Iterator[RunningHub]:
    """Acme with a rule that fails on large deals, and a planner who has no account at the project tool."""
    home = tmp_path / "acme"
    shutil.copytree(ACME, home)
    (home / "rules" / "large.yaml").write_text(STRICT, "utf-8")
    edit(home / "people.yaml", 'accounts: {pm: "9", im: zhaoqiang}', "accounts: {im: zhaoqiang}")
    with running_hub(home, tmp_path / "data", environment(outside.url)) as running:
        yield running


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after), "utf-8")


def sender(hub: RunningHub, instance: str, secret: str) -> Sender:
    return Sender(hub.url, instance, SECRETS[secret])


def parked(hub: RunningHub) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.json("parked", "list")
    return found


def low_stock(sku: str, seq: int) -> bytes:
    body = {"type": "stock.low", "sku": sku, "seq": seq, "at": "2026-11-20T02:00:00Z", "quantity": 3, "minimum": 10}
    return orjson.dumps(body)


def without_amount(number: int) -> bytes:
    body = orjson.loads(deal(number))
    del body["deal"]["amount"]
    return orjson.dumps(body)


def test_a_poison_push_a_failing_rule_and_a_person_without_account(hub: RunningHub, outside: Outside) -> None:
    crm, stock = sender(hub, "crm", "CRM_SECRET"), sender(hub, "stock", "STOCK_SECRET")
    crm.push(without_amount(1))
    crm.push(deal(1, type_="deal.changed", version=8))
    crm.push(deal(2, amount="6000000"))
    crm.push(deal(2, type_="deal.lost", amount="6000000", version=9))
    stock.push(low_stock("A-1", 1))
    stock.push(low_stock("A-1", 2))
    crm.push(deal(3))
    until(lambda: len(outside.of("messages")) == 1, 60, "the deal that nothing is wrong with flows")
    until(lambda: len(parked(hub)) >= 5, 30, "what is wrong is parked")
    found = {(entry["kind"], entry["code"]): entry for entry in parked(hub)}
    assert [made.body["name"] for made in outside.of("projects")] == ["交付 网关项目 3"]
    says_where(found)
    mend(hub)
    assert hub.run("parked", "retry", "--all").returncode in (0, 6)
    until(lambda: not [entry for entry in parked(hub) if entry["kind"] != "delivery"], 60, "the rest is done")
    until(lambda: len(outside.of("tasks")) == 3 + 3 + 2, 60, "both deals' tasks and both stock tasks")
    assert [task.body["title"] for task in outside.of("tasks") if "补货" in task.body["title"]] == [
        "补货 A-1：余 3，下限 10",
        "补货 A-1：余 3，下限 10",
    ]
    assert {task.body["assignee"] for task in outside.of("tasks") if "补货" in task.body["title"]} == {"9"}
    assert "大单 6000000" in {message.body["text"] for message in outside.of("messages")}
    discard_the_poison(hub)


def says_where(found: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Each is parked with a reason and a place, in words."""
    kinds = sorted(kind for kind, _ in found)
    assert kinds == ["command", "delivery", "delivery", "event", "event"]
    [rule] = [entry for (kind, code), entry in found.items() if kind == "event" and code != "HUB-E6010"]
    assert "rules/large.yaml:7" in str(rule["place"])
    assert "discount" in orjson.dumps(rule).decode()
    [person] = [entry for (kind, _), entry in found.items() if kind == "command"]
    assert "zhao.qiang" in orjson.dumps(person).decode()
    [poison] = [entry for (kind, code), entry in found.items() if kind == "delivery" and code != "HUB-E6104"]
    assert "hub.yaml" in str(poison["place"])
    assert "amount" in orjson.dumps(poison).decode()


def mend(hub: RunningHub) -> None:
    """Mend the rule and the people; both are read again while the hub runs."""
    edit(hub.home / "rules" / "large.yaml", ".data.discount", ".data.amount")
    edit(hub.home / "people.yaml", "accounts: {im: zhaoqiang}", 'accounts: {pm: "9", im: zhaoqiang}')


def discard_the_poison(hub: RunningHub) -> None:
    """A push that can never be told is given up with a reason; what waited behind it goes on."""
    [poison] = [entry for entry in parked(hub) if entry["code"] != "HUB-E6104"]
    assert hub.run("parked", "discard", str(poison["id"]), "--reason", "来源已更正").returncode == 0
    hub.run("parked", "retry", "--all")
    until(lambda: parked(hub) == [], 30, "nothing is parked any more")
    until(lambda: bool(hub.json("audit")["ok"]), 60, "the audit holds")


def test_parked_work_is_corrected_previewed_and_goes_on(hub: RunningHub, outside: Outside) -> None:
    crm = sender(hub, "crm", "CRM_SECRET")
    crm.push(without_amount(1))
    crm.push(deal(2, amount="6000000"))
    crm.push(deal(2, type_="deal.changed", amount="6000000", version=8))
    foreign_record(hub)
    until(lambda: hub.json("parked")["count"] == 4, 60, "what is wrong is parked")
    causes = {cause["code"]: cause for cause in hub.json("parked")["causes"]}
    assert {"HUB-E6001", "HUB-E6010"} < set(causes)
    [rule] = [cause for cause in causes.values() if cause["rule"] == "large-deal-to-finance"]
    assert "rules/large.yaml:7" in rule["place"]
    correct_the_event(hub, outside, str(rule["example"]["id"]), rule["cause"])
    [push] = [entry for entry in parked(hub) if entry["kind"] == "delivery"]
    correct_the_push(hub, outside, str(push["id"]))
    [poison] = parked(hub)
    assert hub.run("parked", "discard", str(poison["id"]), "--reason", "nobody's").returncode == 0
    assert hub.json("parked") == {"count": 0, "causes": [], "more": 0}
    until(lambda: bool(hub.json("audit")["ok"]), 60, "the audit holds")
    assert hub.json("audit")["counts"]["events_parked"] == 0


def foreign_record(hub: RunningHub) -> None:
    """Somebody else writes to the log, under a key that can be no case."""
    writer = KafkaLog(hub.client).writer()
    writer.append([Outgoing("hub.events", b"no reference", b"{", 0)])
    writer.close()


def correct_the_event(hub: RunningHub, outside: Outside, number: str, cause: str) -> None:
    """The deal lacks what a rule reads: it is put in, looked at, and the whole cause is tried again."""
    said = hub.run("parked", "preview", number, "--json")
    first, behind = orjson.loads(said.stdout.strip().splitlines()[-1])
    assert (said.returncode, first["outcome"], behind["outcome"]) == (6, "fails", "waits")
    assert "discount" in first["message"]
    edit = ("parked", "edit", number, "--set", "data.discount=九折", "--by", "li.lei", "--reason", "forgotten", "--yes")
    assert hub.run(*edit).returncode == 0

    def foreseen() -> bool:
        return all(each["outcome"] == "done" for each in hub.json("parked", "preview", number))

    until(foreseen, 30, "the preview knows the correction")
    first, behind = hub.json("parked", "preview", number)
    expected = {command["id"] for command in first["commands"]}
    assert not outside.of("projects"), "a preview does nothing"
    assert hub.run("parked", "retry", "--cause", cause).returncode == 0
    until(
        lambda: "大单 九折" in {message.body["text"] for message in outside.of("messages")}, 60, "finance hears of it"
    )
    story = hub.json("parked", "show", number)
    assert (story["state"], [done["what"] for done in story["done"]]) == ("done", ["edited", "retried"])
    log = orjson.loads(hub.run("events", "tail", "--type", "hub.parked.*", "--json").stdout)["events"]
    assert [each["event"]["type"] for each in log] == ["hub.parked.edited", "hub.parked.retried"]
    until(lambda: expected <= {str(each) for each in done_commands(hub)}, 60, "what was foreseen was done")


def done_commands(hub: RunningHub) -> list[str]:
    found = hub.json("events", "tail", "--limit", "500", "--type", "*")["events"]
    return [str(each["event"].get("causationid")) for each in found]


def correct_the_push(hub: RunningHub, outside: Outside, number: str) -> None:
    """A push without its amount is corrected where it is parked; its sender need not send again."""
    assert hub.run("parked", "preview", number).returncode == 6
    made = len(outside.of("projects"))
    assert hub.run("parked", "edit", number, "--set", "deal.amount=880000.10", "--yes").returncode == 0
    [told] = hub.json("parked", "preview", number)
    assert [event["type"] for event in told["events"]] == ["crm.opportunity.won"]
    assert hub.run("parked", "retry", number).returncode == 0
    until(lambda: len(outside.of("projects")) == made + 1, 60, "the deal's project is made")


def test_a_board_that_is_deleted_comes_back_the_same(hub: RunningHub, outside: Outside) -> None:
    crm = sender(hub, "crm", "CRM_SECRET")
    for number in range(5):
        crm.push(deal(number))
    until(lambda: len(outside.of("messages")) == 5, 60, "every message is sent")
    until(lambda: bool(hub.json("audit")["ok"]), 60, "the audit holds")
    assert hub.run("rebuild", "tasks", "--verify").returncode == 0
    before = board(hub)
    hub.stop()
    for file in hub.data.glob("boards.sqlite*"):
        file.unlink()
    hub.start()
    until(lambda: board(hub) == before, 60, "the board is as it was")
    assert hub.run("rebuild", "--all", "--verify").returncode == 0


def board(hub: RunningHub) -> list[dict[str, Any]]:
    import requests

    found: list[dict[str, Any]] = requests.get(f"{hub.url}/boards/tasks.json", timeout=10).json()["items"]
    return sorted(found, key=lambda item: str(item["ref"]))
