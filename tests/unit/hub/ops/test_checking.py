"""What the connectors' own program says of a home: mistakes with their places, and never a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.cli.init import make
from hub.ops import connector_checks


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make(tmp_path / "home", "crm-to-project")
    return tmp_path / "home"


def change(home: Path, file: str, old: str, new: str) -> None:
    told = (home / file).read_text("utf-8")
    assert old in told
    (home / file).write_text(told.replace(old, new), "utf-8")


def found(home: Path) -> list[dict[str, Any]]:
    return [dict(line["finding"]) for line in connector_checks.validate(home, ()) if "finding" in line]


def test_a_wrong_setting_of_a_connector_has_its_place(home: Path) -> None:
    change(home, "hub.yaml", "    receive:", "    recieve:")
    (told,) = found(home)
    assert (told["code"], told["is_error"]) == ("HUB-E4010", True)
    assert told["seen"]["suggestion"] == "receive"
    assert told["place"]["file"] == "hub.yaml"


def test_a_weak_secret_is_refused_and_not_shown(home: Path) -> None:
    (home / ".env").write_text("CRM_SECRET=whsec_aHVudGVyMg==\n")
    (told,) = found(home)
    assert told["code"] == "HUB-E4014"
    assert "aHVudGVyMg" not in str(told)


def test_a_command_that_its_connector_does_not_take(home: Path) -> None:
    change(home, "rules/project_done.yaml", "in: desk", "in: crm")
    (told,) = found(home)
    assert (told["code"], told["place"]["file"]) == ("HUB-E4061", "rules/project_done.yaml")


def test_what_another_mistake_brings_about_is_left_out(home: Path) -> None:
    change(home, "hub.yaml", "timezone: Asia/Shanghai", "timezone: Asia/Shanghi")
    assert [told["code"] for told in found(home)] == ["HUB-E3153"]


def test_a_folder_that_is_no_home_is_an_answer_too(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert connector_checks.main(["validate", "--home", str(tmp_path)]) == 0
    assert b'"error":{"code":"HUB-E1001"' in capfdbinary.readouterr().out


def test_a_check_that_breaks_is_an_error_without_its_secret(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(instance: Any) -> Any:
        raise KeyError(instance.settings["receive"]["verify"]["secret"] if "receive" in instance.settings else "x")

    monkeypatch.setattr("hub.kit.registry.connect", broken)
    told = [dict(line["instance"]) for line in connector_checks.check(home, ["crm"])]
    assert told[0]["ok"] is False
    assert "whsec_" not in str(told)
