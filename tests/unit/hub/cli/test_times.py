"""One clock: times are shown in the home's zone, wherever the terminal is; and short ids are taken wherever ids are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.cli import demo, render
from hub.cli.event_lines import line_of
from hub.cli.parked_entries import local_time
from hub.home import Home
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from tests.events import AT, won
from tests.unit.hub.cli.conftest import Hub

DEAL = won("O-1")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    monkeypatch.setattr(render, "_clock", [])
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def used(home: Path) -> Path:
    ledger = Ledger(Home.load(home).ledger_url)
    ledger.writer.run(lambda conn: outbox.record(conn, [DEAL], "crm"))
    ledger.close()
    return home


def test_times_are_the_homes(used: Path, hub: Hub) -> None:
    assert "11-20 10:00:00  crm.opportunity.won" in hub("why", "O-1", "--home", used).out
    assert local_time(AT) == "11-20 10:00:00"
    assert (line_of(DEAL, "en", {}) or "").split()[0] == "10:00:00"


def test_short_ids_are_taken_as_they_are_printed(used: Path, hub: Hub) -> None:
    short = DEAL.id[:8]
    for name in (short, f"[{short}]", DEAL.id):
        assert hub("events", "show", name, "--home", used, "--json").json["event"]["id"] == DEAL.id
        assert hub("rules", "dry-run", "--event", name, "--home", used, "--json").json[0]["event"]["id"] == DEAL.id
    assert hub("events", "show", "nothing-here", "--home", used).code == 1


def test_a_taken_port_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"url": "u", "database": "d", "login": "l", "password": "p"}
    monkeypatch.setattr("hub.ops.embedded_kafka.ports.any_free", lambda wanted: 30844)
    monkeypatch.setattr("hub.ops.embedded_kafka.ports.occupant", lambda port: "nginx 312")
    assert demo.environment(settings)["HUB_WEB_PORT"] == "30844"
    assert capsys.readouterr().out == "  ! port 8600 is taken (nginx 312); the boards are at 30844 instead\n"
    monkeypatch.setattr("hub.ops.embedded_kafka.ports.any_free", lambda wanted: 8600)
    demo.environment(settings)
    assert capsys.readouterr().out == ""
