"""`hub config show` and `hub explain`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.hub.cli.conftest import Hub


def test_each_setting_says_where_it_comes_from(home: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_LEDGER", "postgresql+psycopg://hub:hunter2@db/hub")
    found = {
        each["setting"]: (each["value"], each["origin"])
        for each in hub("config", "show", "--home", home, "--json").json
    }
    assert found["name"][1] == "hub.yaml:3:7"
    assert found["kafka.port"] == (19092, "default")
    assert found["ledger"] == ("postgresql+psycopg://hub:***@db/hub", "HUB_LEDGER")
    assert found["connectors.crm.receive.verify.secret"][0] == "***"


def test_no_secret_is_shown(home: Path, hub: Hub) -> None:
    told = (home / "hub.yaml").read_text()
    (home / "hub.yaml").write_text(told + "    password: hunter2\n")
    shown = hub("config", "show", "--origin", "--home", home).out
    assert f"connectors.desk.password = ***    # hub.yaml:{len(told.splitlines()) + 1}:15" in shown
    secret = (home / ".env").read_text().partition("CRM_SECRET=")[2].strip()
    assert len(secret) > 20
    assert secret not in shown


def test_a_code_is_explained(hub: Hub) -> None:
    assert "refuses the credentials" in hub("explain", "HUB-E4003").out
    assert hub("explain", "e4003", "--json").json["code"] == "HUB-E4003"
    assert "{{" not in hub("explain", "HUB-E4013").out
    assert hub("explain", "E0000").code == 2
