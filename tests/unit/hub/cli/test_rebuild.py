"""`hub rebuild`: its words and exit codes on what the boards' program says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hub.cli import other_programs
from tests.unit.hub.cli.conftest import Hub

EQUAL = {
    "board": "tasks",
    "records": 9,
    "rows": 3,
    "built": "a",
    "live": "a",
    "equal": True,
    "differing": [],
    "differing_count": 0,
}
OTHER = {**EQUAL, "live": "b", "equal": False, "differing": ["task/pm/T-1"], "differing_count": 1}


@pytest.fixture
def boards(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the boards' program says."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(other_programs, "ask", lambda *_asked: iter(told))
    monkeypatch.setenv("HUB_KAFKA", "127.0.0.1:1")
    return told


def test_a_board_that_differs_fails_only_when_it_was_to_be_compared(
    home: Path, hub: Hub, boards: list[dict[str, Any]]
) -> None:
    boards += [{"progress": {"board": "tasks", "done": 1, "total": 9}}, {"board": OTHER}]
    ran = hub("rebuild", "tasks", "--verify", "--home", home)
    assert ran.code == 1
    assert "task/pm/T-1" in ran.out
    ran = hub("rebuild", "tasks", "--home", home)
    assert ran.code == 0
    assert "rebuilt as 3 rows" in ran.out


def test_a_board_that_could_not_be_built_fails(home: Path, hub: Hub, boards: list[dict[str, Any]]) -> None:
    boards += [
        {"error": {"board": "tasks", "code": "HUB-E5103", "seen": {"board": "tasks"}}},
        {"board": {**EQUAL, "board": "deals"}},
    ]
    ran = hub("rebuild", "--all", "--home", home, "--json")
    assert (ran.code, ran.json["ok"]) == (1, False)
    assert [error["code"] for error in ran.json["errors"]] == ["HUB-E5103"]
    assert [board["board"] for board in ran.json["boards"]] == ["deals"]


def test_boards_that_there_are_not(home: Path, hub: Hub, boards: list[dict[str, Any]]) -> None:
    boards.append({"unknown": ["nope"], "known": ["deals", "tasks"]})
    assert hub("rebuild", "nope", "--home", home).code == 2
    assert hub("rebuild", "--home", home).code == 2
    assert hub("rebuild", "tasks", "--all", "--home", home).code == 2
