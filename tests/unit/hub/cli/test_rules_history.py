"""`hub rules history`: what the log tells of rules, for people and for machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli.rules_history import as_value, lines
from hub.cli.terminal import speech
from hub.home import Home
from tests.events import won
from tests.unit.hub.processor.rule_stage import TASK, Stage, write


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_each_change_is_told_with_what_it_changed_and_from_where_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = stage.home(won=TASK % "a", gone=TASK % "g")
    worker = stage.worker(home)
    stage.append(won(f"O-{n}") for n in range(30))
    worker.fold()
    stage.home(won=TASK % "b", more=TASK % "c")
    (home / "rules" / "gone.yaml").unlink()
    write(home / "people.yaml", "people:\n  han.mei: {name: 韩梅, roles: [lead]}\n")
    worker.look()
    stage.append(won(f"O-{n}") for n in range(100, 130))
    worker.fold()
    stage.relay()
    loaded = Home.load(home, {"HUB_DATA": str(home / ".hub")})
    told = as_value(stage.history(), loaded)
    first, second = told["changes"]
    assert (first["added"], first["changed"], first["removed"]) == (["gone", "won"], [], [])
    assert (second["added"], second["changed"], second["removed"]) == (["more"], ["won"], ["gone"])
    assert (second["people"], second["calendar"]) == (True, False)
    assert set(first["from_offsets"].values()) == {0}
    assert all(offset > 0 for offset in second["from_offsets"].values())
    assert told["files"]["in_force"]
    assert told["in_force"] == {"ruleset": second["ruleset"], "world": second["world"]}
    monkeypatch.setattr(speech, "language", "en")
    said = list(lines(told))
    assert {"      + more", "      ~ won", "      - gone", "      ~ people"} <= set(said)
    assert not any("not the set in force" in line for line in said)
    write(home / "people.yaml", "people: {}\n")
    assert any("not the set in force" in line for line in lines(as_value(stage.history(), loaded)))


def test_a_log_without_rules_says_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "language", "zh-CN")
    told = as_value(stage.history())
    assert (told["changes"], told["in_force"]) == ([], None)
    (line,) = lines(told)
    assert "还没有规则" in line
