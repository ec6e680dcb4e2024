"""What happened, on the command line: told alike from ledger and log, and with plain words for what cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from hub.cli.running_hub import RunningHub
from hub.errors import FatalError
from hub.home import Home
from hub.ledger import commands, conflicts, outbox, parked
from hub.ledger.ledger import Ledger
from hub.log.memory_log import MemoryLog
from hub.projector.runner import Runner
from hub.projector.store import BoardStore
from hub.projector.trail_index import INDEX
from hub.runtime.clock import SystemClock
from tests.contract.test_recall import relayed
from tests.events import AT, DEAL, command, event, result, won
from tests.unit.hub.cli.conftest import Hub

BIG, SMALL = won("O-1"), won("O-2", data={**DEAL, "amount": "5"})
PROJECT = command(BIG, "project.create")
MADE = result(PROJECT, "P-77")
AGAIN = event("hub.parked.retried", BIG.subject, data={"parked": BIG.id, "by": "person/li.lei"})
ASKED = (
    ("why", "P-77"),
    ("why", "O-2"),
    ("why", "O-1", "--json"),
    ("events", "show", BIG.id[:8]),
    ("events", "show", BIG.id, "--json"),
    ("events", "tail", "--type", "crm.*", "--json"),
    ("events", "tail", "--case", BIG.case),
    ("rules", "dry-run", "--event", SMALL.id),
    ("parked", "show", "1"),
    ("events", "conflicts"),
)


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    opened = Ledger(Home.load(home).ledger_url)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def log(home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> MemoryLog:
    """Two won deals, one of which has its project; the log has them, and the trail knows where."""

    def work(conn: Connection) -> None:
        outbox.record(conn, [BIG, SMALL, MADE, AGAIN], "crm")
        conflicts.detect(conn, [(won("O-2", data={**DEAL, "amount": "6"}), "crm")])
        entry = {
            "ref": f"event/{BIG.id}",
            "kind": "event",
            "case_id": BIG.case,
            "subject": BIG.subject,
            "code": "HUB-E6005",
        }
        parked.park(conn, {**entry, "seen": {"reason": "KeyError"}, "body": BIG.to_json(), "parked_at": AT})
        commands.accept(conn, PROJECT, PROJECT.to_json(), AT)

    ledger.writer.run(work)
    told = MemoryLog()
    relayed(ledger, told)
    store = BoardStore(Home.load(home).boards_url)
    store.prepare([INDEX])
    Runner(told, store, INDEX, SystemClock()).catch_up()
    store.close()
    monkeypatch.setattr(RunningHub, "log", lambda self: told)
    return told


def emptied(ledger: Ledger) -> None:
    ledger.writer.run(lambda conn: conn.execute(outbox.outbox.delete()))


@pytest.mark.parametrize("asked", ASKED, ids=" ".join)
def test_the_answer_is_the_same_when_only_the_log_has_it(
    home: Path, hub: Hub, ledger: Ledger, asked: tuple[str, ...]
) -> None:
    before = hub(*asked, "--home", home)
    assert before.code == 0
    emptied(ledger)
    assert hub(*asked, "--home", home) == before


@pytest.mark.parametrize("asked", ASKED[:3], ids=" ".join)
def test_without_a_broker_the_ledger_answers(
    home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    before = hub(*asked, "--home", home)
    monkeypatch.setattr(RunningHub, "log", no_log)
    assert hub(*asked, "--home", home) == before


def no_log(hub: RunningHub) -> MemoryLog:
    raise FatalError("HUB-E2011", home=hub.home.path)


def test_what_nobody_can_read_now_is_said(
    home: Path, hub: Hub, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunningHub, "log", no_log)
    tail = hub("events", "tail", "--type", "crm.*", "--json", "--home", home).json
    assert [each["event"]["id"] for each in tail["events"]] == [BIG.id, SMALL.id]
    assert tail["code"] == "HUB-E2011"
    emptied(ledger)
    ran = hub("why", BIG.id, "--home", home)
    assert (ran.code, ran.error and ran.error.code) == (1, "HUB-E6216")
    told = hub("why", "P-77", "--json", "--home", home).json
    assert [root["command"]["id"] for root in told["story"]] == [PROJECT.id]
    assert (told["gaps"]["code"], len(told["gaps"]["unread"])) == ("HUB-E2011", 3)


def test_without_a_ledger_the_log_answers(home: Path, hub: Hub, ledger: Ledger) -> None:
    ledger.close()
    Path(ledger.engine.url.database or "").unlink()
    told = hub("why", "P-77", "--json", "--home", home).json
    assert told["gaps"] == {"ledger": True}
    assert {root["event"]["id"] for root in told["story"]} == {MADE.id}


def test_what_was_done_about_parked_work_and_what_was_told_again_is_read_from_the_log(
    home: Path, hub: Hub, ledger: Ledger
) -> None:
    emptied(ledger)
    told = hub("parked", "show", "1", "--json", "--home", home).json
    assert ([each["by"] for each in told["done"]], told["gaps"]) == (["person/li.lei"], {})
    (conflict,) = hub("events", "conflicts", "--json", "--home", home).json["conflicts"]
    assert conflict["changes"] == {"amount": {"first": "5", "later": "6"}}
