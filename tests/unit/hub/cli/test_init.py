"""`hub init`: every template is a sound home at once, and its secrets are its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli.init import templates
from hub.ops import connector_checks
from tests.unit.hub.cli.conftest import Hub


@pytest.mark.parametrize("template", templates())
def test_every_template_is_a_sound_home(tmp_path: Path, hub: Hub, template: str) -> None:
    folder = tmp_path / "acme-2"
    assert hub("init", folder, "--template", template).code == 0
    found = [line["finding"] for line in connector_checks.validate(folder, ()) if "finding" in line]
    assert [each["code"] for each in found] == (
        ["HUB-W3143"] if template == "demo" else []
    )  # it lacks an account on purpose
    assert hub("rules", "test", "--home", folder, "--json").json["ok"]
    assert {".env", ".hub/"} <= set((folder / ".gitignore").read_text().split())
    assert (folder / "README.md").is_file()


def test_secrets_are_fresh_and_private(tmp_path: Path, hub: Hub) -> None:
    found = []
    for name in ("a", "b"):
        hub("init", tmp_path / name)
        file = tmp_path / name / ".env"
        assert file.stat().st_mode & 0o777 == 0o600
        found += [line for line in file.read_text().splitlines() if line.startswith("CRM_SECRET=whsec_")]
    assert len(set(found)) == 2
    example = (tmp_path / "a" / ".env.example").read_text()
    assert "CRM_SECRET=\n" in example
    assert "whsec_" not in example


def test_the_hub_is_called_after_its_folder_and_speaks_as_the_terminal(tmp_path: Path, hub: Hub) -> None:
    hub("init", tmp_path / "north", "--template", "empty")
    told = (tmp_path / "north" / "hub.yaml").read_text()
    assert "\nname: north\n" in told
    assert "\nlanguage: en " in told


def test_a_folder_in_use_is_refused_and_left_alone(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = hub("init", tmp_path)
    assert (ran.code, ran.error and ran.error.code) == (3, "HUB-E1021")
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_a_fresh_git_repository_is_taken(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / ".git").mkdir()
    assert hub("init", tmp_path).code == 0


def test_an_unknown_template_is_a_usage_error(tmp_path: Path, hub: Hub) -> None:
    assert hub("init", tmp_path / "x", "--template", "nope").code == 2
