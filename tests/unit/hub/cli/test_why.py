"""`hub why`: the path to a thing, what stands in its way, and why nothing followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection

from hub.home import RULES_HISTORY, Home
from hub.ledger import commands, outbox, parked
from hub.ledger.ledger import Ledger
from hub.log.partitioner import partition_of
from hub.processor.rules_in_force import in_force
from hub.rules.book import Files, announcement
from hub.rules.history import RuleTimeline
from schemas.topics import PARTITIONS
from tests.events import AT, DEAL, command, result, won
from tests.unit.hub.cli.conftest import Hub

BIG = won("O-1")
SMALL = won("O-2", data={**DEAL, "amount": "5"})
PROJECT, TASK = (command(BIG, type_, n) for n, type_ in enumerate(("project.create", "task.create")))


@pytest.fixture(autouse=True)
def ledger(home: Path) -> Iterator[Ledger]:
    """A won deal with a project, a task that is parked, and a small deal that nothing followed."""
    opened = Ledger(Home.load(home).ledger_url)

    def work(conn: Connection) -> None:
        outbox.record(conn, [BIG, SMALL, result(PROJECT, "P-77")], "crm")
        table = commands.commands
        for asked in (PROJECT, TASK):
            commands.accept(conn, asked, asked.to_json(), AT)
        conn.execute(table.update().where(table.c.id == PROJECT.id).values(state="DONE", attempts=3, effect_id="P-77"))
        conn.execute(
            table.update().where(table.c.id == TASK.id).values(state="PARKED", code="HUB-E3143", reason="no account")
        )
        seen = {"person": "person/li.lei", "instance": "pm", "id": "li.lei"}
        row = {
            "ref": f"command/{TASK.id}",
            "kind": "command",
            "code": "HUB-E3143",
            "seen": seen,
            "body": b"",
            "parked_at": AT,
        }
        parked.park(conn, row)

    opened.writer.run(work)
    yield opened
    opened.close()


def test_the_whole_chain_of_a_deal(home: Path, hub: Hub) -> None:
    told = hub("why", "O-1", "--home", home).out
    assert told.index("crm.opportunity.won") < told.index("project.create @pm  done, 3 tries  → P-77")
    assert (
        told.index("project.create @pm")
        < told.index("work.project.created  project/pm/P-77")
        < told.index("task.create")
    )
    assert "task.create @pm  parked" in told
    assert "HUB-E3143 no account" in told


def test_a_project_shows_its_path_and_how_much_is_left_out(home: Path, hub: Hub) -> None:
    told = hub("why", "P-77", "--home", home).out
    assert "work.project.created  project/pm/P-77" in told
    assert "◀" in told
    assert "task.create" not in told
    assert f"1 more  → hub why {BIG.id}" in told


def test_what_is_parked_says_what_to_do(home: Path, hub: Hub) -> None:
    told = hub("why", TASK.id, "--home", home).out
    assert "parked #1  HUB-E3143" in told
    assert "→ add accounts: {pm: …} to li.lei" in told


def test_where_nothing_followed_each_rule_says_why(home: Path, hub: Hub) -> None:
    told = hub("why", SMALL.id, "--home", home).out
    assert "No rule has requested anything" in told
    assert "✘ double(event.data.amount) >= 10000.0   event.data.amount = 5" in told
    assert "No rule has requested" not in hub("why", BIG.id, "--home", home).out


def test_the_rules_of_then_say_why_nothing_followed(home: Path, hub: Hub, ledger: Ledger) -> None:
    loaded = Home.load(home)
    store = loaded.rule_store()
    files = Files.of(store.current, store.texts)
    events = announcement(files, RuleTimeline(), AT, {})
    partition = partition_of(SMALL.case.encode(), PARTITIONS)
    events.append(in_force(partition, 0, files.sets, None, None, {}, AT))
    loaded.data.mkdir(parents=True, exist_ok=True)
    (loaded.data / RULES_HISTORY).write_bytes(orjson.dumps({"events": [told.model_dump() for told in events]}))
    ledger.writer.run(lambda conn: outbox.take(conn, 100, PARTITIONS))
    for file in (home / "rules").glob("*.yaml"):
        file.write_text(file.read_text("utf-8").replace("10000.0", "1.0"), "utf-8")
    told = hub("why", SMALL.id, "--home", home).out
    assert f"By the rules in force then ({files.sets.ruleset[:12]})" in told
    assert "✘ double(event.data.amount) >= 10000.0   event.data.amount = 5" in told
    (answer,) = hub("why", SMALL.id, "--home", home, "--json").json["unanswered"]
    assert answer["judged_by"] == files.sets._asdict()


def test_machines_get_the_tree(home: Path, hub: Hub) -> None:
    told = hub("why", "project/pm/P-77", "--home", home, "--json").json
    (root,) = told["story"]
    assert (told["ref"], told["case"], root["event"]["id"]) == ("project/pm/P-77", BIG.case, BIG.id)
    (asked,) = root["caused"]
    assert (asked["command"]["state"], asked["command"]["attempts"]) == ("DONE", 3)
    assert asked["caused"][0]["event"]["subject"] == "project/pm/P-77"


def test_nothing_and_several_are_told_apart(home: Path, hub: Hub) -> None:
    ran = hub("why", "P-78", "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6206")


def test_a_home_without_a_ledger(tmp_path: Path, hub: Hub) -> None:
    hub("init", tmp_path / "new")
    ran = hub("why", "O-1", "--home", tmp_path / "new")
    assert (ran.code, ran.error and ran.error.code) == (5, "HUB-E5006")
