"""A rule's new name, an entry's new place: ids stay where the file says so, and `hub validate` tells where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.home import Home
from tests.events import won
from tests.unit.hub.processor.rule_stage import Stage, write
from tests.unit.hub.rules.homes import HEAD, mistakes, read, rules
from tests.unit.hub.rules.test_rule_set import decide

TWO = 'do:\n  - task.create: {in: pm, title: "a"}\n  - message.send: {in: im, to: person/li.lei, text: "b"}\n'
MOVED = """\
do:
  - task.create: {id: new, in: pm, title: "n"}
  - task.create: {id: 1, in: pm, title: "a"}
  - message.send: {id: 2, in: im, to: person/li.lei, text: "b"}
"""


def ids(text: str) -> dict[str, str]:
    return {f"{told.type} {told.arguments.get('title')}": told.id for told in decide(rules(text)).live}


def test_a_renamed_rule_keeps_its_ids() -> None:
    renamed = HEAD.replace("rule: won", "rule: other\nrenamed_from: won")
    assert ids(renamed + TWO) == ids(HEAD + TWO)
    twice = HEAD.replace("rule: won", "rule: third\nrenamed_from: [won, other]")
    assert ids(twice + TWO) == ids(HEAD + TWO)
    assert ids(HEAD.replace("rule: won", "rule: other") + TWO) != ids(HEAD + TWO)
    assert decide(rules(renamed + TWO)).live[0].rule == "other"


def test_a_moved_entry_keeps_its_id() -> None:
    before, after = ids(HEAD + TWO), ids(HEAD + MOVED)
    assert before.items() <= after.items()
    assert len(set(after.values())) == 3


@pytest.mark.parametrize("told", ["0", "1.5", "-1", "''", "A b", "true", "[1]"])
def test_an_id_is_a_position_or_a_name(told: str) -> None:
    assert "HUB-E3001" in {
        code for code, _, _ in mistakes(HEAD + f"do:\n  - task.create: {{id: {told}, in: pm, title: a}}\n")
    }


def test_two_entries_with_one_id_are_a_mistake() -> None:
    both = 'do:\n  - task.create: {in: pm, title: "n"}\n  - task.create: {id: 1, in: pm, title: "a"}\n'
    assert [code for code, _, _ in mistakes(HEAD + both)] == ["HUB-E3168"]


def test_a_name_of_before_belongs_to_one_rule() -> None:
    other = HEAD.replace("rule: won", "rule: other\nrenamed_from: won")
    _, errors = read(HEAD + TWO, other + TWO)
    assert [error.code for error in errors] == ["HUB-E3167"]


def codes(home: Path) -> list[str]:
    loaded = Home.load(home, {"HUB_DATA": str(home / ".hub")})
    return [found.error.code for found in loaded.check() if found.error.code.startswith("HUB-W33")]


def test_validate_warns_of_what_would_change_ids(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    home = stage.home(won_deal=TWO)
    assert codes(home) == [], "nothing was announced yet"
    worker = stage.worker(home)
    assert codes(home) == []
    file = home / "rules" / "won_deal.yaml"
    text = file.read_text()
    write(file, text.replace("rule: won-deal", "rule: deal-won"))
    assert codes(home) == ["HUB-W3301"]
    write(file, text.replace("rule: won-deal", "rule: deal-won\nrenamed_from: won-deal"))
    assert codes(home) == []
    write(file, text.replace("do:\n", 'do:\n  - task.create: {in: pm, title: "n"}\n'))
    assert codes(home) == ["HUB-W3302", "HUB-W3302"]
    write(file, text.replace(TWO, MOVED))
    assert codes(home) == []
    worker.look()
    assert codes(home) == [], "what is announced now is what counts"
    stage.relay()
    worker = stage.worker(home)
    stage.append([won("O-1")])
    worker.fold()
    write(file, text.replace("crm.opportunity.won", "crm.opportunity.lost").replace("rule: won-deal", "rule: lost"))
    assert codes(home) == [], "another rule for other things"
