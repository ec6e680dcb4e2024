"""`hub status`: answers whatever is down, and never makes what it only looks at."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection

from hub.cli.health_summary import exit_of
from hub.cli.status import instance_states, lines
from hub.health import looking
from hub.health.status import Facts, HealthState, HealthStatus, ProgramFact, Trouble
from hub.home import Home
from hub.ledger import commands, conflicts, cursors, outbox, refused
from hub.ledger.ledger import Ledger
from hub.ledger.refused import Reason, Refusal
from hub.log.memory_log import MemoryLog
from hub.projector.folding import FoldPosition
from hub.projector.store import BoardStore, write_places
from schemas.envelope import parse_time
from tests.contract.test_recall import record, relayed
from tests.events import AT, command, event, won
from tests.trimming import note_backup, trim
from tests.unit.hub.cli.conftest import Hub


def test_a_home_that_never_ran_is_told_and_left_untouched(home: Path, hub: Hub) -> None:
    ran = hub("status", "--home", home, "--json")
    assert ran.code == 1
    told = ran.json
    assert (told["running"], told["accepted"], told["held"], told["unpublished"]) == (False, 0, 0, 0)
    assert (told["programs"], told["processor"], told["boards"]) == ({}, None, {})
    assert set(told["connectors"]) == {"crm", "desk"}
    assert not (home / ".hub").exists()
    assert "is not running" in hub("status", "--home", home).out


def test_the_ledger_is_counted_while_the_hub_is_down(home: Path, hub: Hub) -> None:
    ledger = Ledger(Home.load(home).ledger_url)
    paused = event("hub.connector.paused", "connector/hub/crm", data={"reason": "no"})

    def work(conn: Connection) -> None:
        outbox.record(conn, [won(), paused], "crm")
        outbox.hold(conn, won("O-2"), "crm", AT)
        asked = command(won())
        commands.accept(conn, asked, asked.to_json(), AT)
        cursors.move(conn, "crm", "deals", "17", AT)

    ledger.writer.run(work)
    ledger.close()
    ran = hub("status", "--home", home, "--json")
    told = ran.json
    assert ran.code == 1
    assert (told["accepted"], told["held"], told["unpublished"]) == (3, 1, 3)
    assert told["commands"] == {"new": 1}
    assert told["connectors"]["crm"]["state"] == "paused"
    assert told["connectors"]["crm"]["streams"]["deals"]["cursor"] == "17"
    assert told["connectors"]["desk"]["state"] == "down"
    shown = "\n".join(lines(told))
    assert "✘ crm (http)  paused  ✘ deals" in shown
    assert "○ desk (builtin)  not running" in shown


def test_board_places_are_what_the_boards_store_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/boards.sqlite"
    assert looking.board_places(url) == {}
    store = BoardStore(url)
    store.prepare()
    with store.writing() as conn:
        for name in ("tasks", "tasks__shadow"):
            owner = "INSERT INTO board_owners VALUES (?, 1, 1, '', 0, ?, 0, 0)"
            conn.exec_driver_sql(owner, (name, AT))
            write_places(conn, name, {0: FoldPosition(next_offset=5), 3: FoldPosition(next_offset=7)})
    store.close()
    (found,) = looking.board_places(url).items()
    assert found == ("tasks", looking.BoardPlace({0: 5, 3: 7}, AT))
    assert found[1].behind({0: 5, 1: 2, 3: 8}) == 3


def verdict(*troubles: Trouble, parked: int = 0, running: bool = True) -> HealthStatus:
    facts = Facts(parse_time(AT), running=running, parked={"event": parked} if parked else {})
    state = max((each.state for each in troubles if not each.outside), default=HealthState.OK)
    return HealthStatus(AT, state, troubles, (), facts)


def test_exit_codes_tell_what_is_wrong() -> None:
    late = Trouble("rules", HealthState.STALLED, {})
    away = Trouble("away", HealthState.DOWN, {})
    refused = Trouble("instance", HealthState.DEGRADED, {}, outside=True)
    broken = Trouble("files", HealthState.DEGRADED, {}, outside=True)
    assert exit_of(verdict()) == 0
    assert exit_of(verdict(late)) == 1
    assert exit_of(verdict(refused)) == 4
    assert exit_of(verdict(late, away)) == 5
    assert exit_of(verdict(broken, refused)) == 3
    assert exit_of(verdict(late, broken)) == 1
    assert exit_of(verdict(parked=2)) == 6
    assert exit_of(verdict(late, parked=2)) == 1


def test_an_instance_is_never_well_without_a_program_that_works_for_it() -> None:
    names = ("crm", "pm")
    assert instance_states(names, verdict()) == {"crm": "ok", "pm": "ok"}
    assert instance_states(names, verdict(running=False)) == {"crm": "down", "pm": "down"}
    stale = Trouble("stream", HealthState.DEGRADED, {"instance": "crm"}, outside=True)
    assert instance_states(names, verdict(stale)) == {"crm": "late", "pm": "ok"}
    for state in ("down", "frozen"):
        told = verdict()
        facts = replace(told.facts, programs=(ProgramFact("connectors", 1, state),))
        assert instance_states(names, replace(told, facts=facts)) == {"crm": "down", "pm": "down"}


def test_a_broker_that_does_not_answer_is_told_by_its_code(home: Path, hub: Hub) -> None:
    told = (home / "hub.yaml").read_text()
    (home / "hub.yaml").write_text(told.replace("{embedded: true}", '{bootstrap: "127.0.0.1:1"}'))
    Ledger(Home.load(home).ledger_url).close()
    ran = hub("status", "--home", home, "--json")
    assert ran.code == 5
    assert ran.json["health"]["status"] == "down"
    assert [trouble["kind"] for trouble in ran.json["health"]["troubles"]] == ["stopped", "away"]


def test_refused_pushes_are_told_signed_ones_first(home: Path, hub: Hub) -> None:
    ledger = Ledger(Home.load(home).ledger_url)
    now = datetime.now(UTC)
    refusal = Refusal("crm", "delivery/crm/1", "1", "HUB-E3130", {"reason": "x"}, {}, b"{", now)
    old = now - timedelta(days=20)

    def work(conn: Connection) -> None:
        refused.store(conn, refusal)
        refused.count(conn, {Reason("crm", "HUB-E7008"): 120}, now)
        refused.count(conn, {Reason("erp", "HUB-E7008"): 9}, old)

    ledger.writer.run(work)
    ledger.close()
    told = hub("status", "--home", home, "--json").json["refused"]
    assert [(each["instance"], each["signed"], each["times"]) for each in told] == [
        ("crm", True, 1),
        ("crm", False, 120),
    ]
    assert "refused 1 (signed)  HUB-E3130" in (out := hub("status", "--home", home).out)
    assert "hub parked --refused" in out


def test_a_source_whose_clock_is_ahead_and_what_it_told_twice_are_shown(home: Path, hub: Hub) -> None:
    ledger = Ledger(Home.load(home).ledger_url)
    first = won().model_copy(update={"source": "/connectors/crm"})
    later = first.model_copy(update={"data": {**first.data, "amount": "1880000"}})

    def work(conn: Connection) -> None:
        outbox.record(conn, [first], "crm")
        conflicts.detect(conn, [(later, "crm")])
        cursors.move(conn, "crm", "deals", "17", AT, 3540.0)

    ledger.writer.run(work)
    ledger.close()
    told = hub("status", "--home", home, "--json").json
    assert told["conflicts"] == {"crm": 1}
    assert told["connectors"]["crm"]["streams"]["deals"]["ahead_seconds"] == 3540.0
    shown = "\n".join(lines(told))
    assert "! delivered again with other content, the first counts  crm 1" in shown
    assert "! the clock of crm is 59 minutes ahead of the hub's" in shown
    assert "events conflicts" in hub("status", "--home", home).out
    listed = hub("events", "conflicts", "--home", home)
    assert first.subject in listed.out
    assert "amount: '880000' → '1880000'" in listed.out
    machine = hub("events", "conflicts", "--instance", "crm", "--home", home, "--json").json
    assert machine["counts"] == {"crm": 1}
    assert [each["subject"] for each in machine["conflicts"]] == [first.subject]
    assert hub("events", "conflicts", "--instance", "pm", "--home", home, "--json").json["conflicts"] == []
    ran = hub("why", first.subject, "--home", home)
    assert "the same version was delivered with other content" in ran.out
    assert "amount: '880000' → '1880000'" in ran.out
    (found,) = hub("why", first.subject, "--home", home, "--json").json["conflicts"]
    assert found["changes"] == {"amount": {"first": "880000", "later": "1880000"}}


def test_why_the_ledger_keeps_more_than_it_was_told_to(home: Path, hub: Hub) -> None:
    config = (home / "hub.yaml").read_text()
    (home / "hub.yaml").write_text(f"ledger_history: 2d\n{config}")
    ledger, log = Ledger(Home.load(home).ledger_url), MemoryLog()
    record(ledger, *range(5))
    relayed(ledger, log)
    told = hub("status", "--home", home, "--json").json["history"]
    assert (told["rows"], told["keys"], told["why"]) == (5, 0, "never backed up")
    assert "hub backup DIR" in hub("status", "--home", home).out
    checks = {each["check"]: each for each in hub("doctor", "--home", home, "--json").json["checks"]}
    assert (checks["history"]["level"], checks["history"]["fix"]) == ("WARN", "hub backup DIR")

    note_backup(ledger, log, {})
    assert hub("status", "--home", home, "--json").json["history"]["why"] == "its turn"
    record(ledger, 77)
    assert "is trimmed when the hub runs" in hub("status", "--home", home).out
    trim(ledger, log)
    told = hub("status", "--home", home, "--json").json["history"]
    assert (told["rows"], told["keys"]) == (1, 5)
    assert hub("status", "--home", home, "--json").json["accepted"] == 6
    ledger.close()
    (home / "hub.yaml").write_text(f"ledger_history: forever\n{config}")
    assert hub("status", "--home", home, "--json").json["history"]["why"] == "forever"
    assert "ledger_history: forever" in str(hub("doctor", "--home", home, "--json").json["checks"])
