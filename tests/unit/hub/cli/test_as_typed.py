"""Printed commands work as they are printed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hub.cli import terminal
from hub.cli import terminal as as_typed
from hub.cli.terminal import speech
from hub.errors import FatalError, texts
from tests.unit.hub.cli.conftest import Hub

REAL = Path(sys.executable).with_name("hub")


@pytest.fixture(autouse=True)
def _as_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(REAL)])
    monkeypatch.setattr(speech, "home", None)


def test_the_hub_is_named_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(REAL.parents[2])
    assert as_typed.program() == ".venv/bin/hub"
    assert as_typed.program(below=tmp_path) == str(REAL)
    monkeypatch.chdir(tmp_path)
    assert as_typed.program() == str(REAL)
    monkeypatch.setenv("PATH", str(REAL.parent))
    assert as_typed.program() == "hub"
    monkeypatch.setattr(sys, "argv", ["/x/hub/cli/main.py"])
    assert as_typed.program() == f"{sys.executable} -m hub.cli.main"


def test_a_home_that_was_named_is_named_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(REAL.parent))
    monkeypatch.setattr(speech, "home", Path("我的 家"))
    assert as_typed.runnable("先 hub doctor，再 hub parked retry --all") == (
        "先 hub doctor --home '我的 家'，再 hub parked retry --home '我的 家' --all"
    )
    assert as_typed.runnable("run hub init {home}, see hub.yaml") == "run hub init {home}, see hub.yaml"
    assert as_typed.runnable("the hub is down; hub status --home x") == "the hub is down; hub status --home x"
    assert as_typed.command_line("why", "P-7") == "hub why P-7 --home '我的 家'"


def test_every_command_in_the_texts_is_known() -> None:
    """What the texts tell people to run is a command that there is."""
    from tests.unit.hub.cli.test_main import COMMANDS

    known = {" ".join(path) for path in COMMANDS} | {path[0] for path in COMMANDS} | {"backup", "restore"}
    for code, entry in texts().items():
        for fix in entry["fix"].values():
            for found in as_typed._COMMAND.finditer(fix):
                assert found["words"] in known, (code, fix)


def test_the_next_step_of_init_works_as_printed(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    told = hub("init", "我的 集成", "--template", "empty").out
    step = told.partition("next: ")[2].strip().removesuffix(f" && {shlex.quote(str(REAL))} up")
    done = subprocess.run(step, shell=True, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, (step, done.stdout, done.stderr)


def test_a_hint_names_the_home_that_was_named(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(REAL.parent))
    folder = tmp_path / "a b"
    hub("init", folder, "--template", "empty")
    ran = hub("events", "tail", "--home", folder)
    assert ran.error is not None
    assert terminal.explain(FatalError("HUB-E2104", reason="x"))[-1].endswith(f"hub doctor --home '{folder}'")
    hub("explain", "HUB-E2104")
    assert terminal.explain(FatalError("HUB-E2104", reason="x"))[-1].endswith("hub doctor")
