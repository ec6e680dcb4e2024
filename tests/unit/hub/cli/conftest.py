"""Runs commands in this process, as a terminal would: with an exit code, and an error said in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from hub.cli import terminal
from hub.cli.init import make
from hub.cli.main import app
from hub.errors import HubError


@dataclass(frozen=True)
class Ran:
    """How a command ended. `error` is the one that it raised, if any."""

    code: int
    out: str
    error: HubError | None = None

    @property
    def json(self) -> Any:
        """Its answer in JSON: the last line."""
        return orjson.loads(self.out.strip().splitlines()[-1])


Hub = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine counts, and none of a test's outlives it."""
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUB_LANG", "en")
    monkeypatch.setattr(terminal.speech, "language", "en")
    monkeypatch.setattr(terminal.speech, "home", None)
    monkeypatch.setattr(terminal.speech, "verbose", False)


@pytest.fixture
def hub() -> Hub:
    """Runs `hub ARGUMENTS`."""

    def run(*arguments: object) -> Ran:
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        if isinstance(done.exception, HubError):
            return Ran(int(terminal.exit_code(done.exception)), done.stdout, done.exception)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout)

    return run


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home from the template crm-to-project; nothing has run on it."""
    folder = tmp_path / "家"
    make(folder, "crm-to-project")
    return folder
