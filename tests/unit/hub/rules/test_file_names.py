"""What is a rule file, in which encodings every file is read, and that no file holds more than a machine does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from hub.config.yaml_places import parse_yaml, read_bytes
from hub.errors import FatalError
from hub.home import Home, check_home
from hub.rules.files import nested_files, rule_files, rule_of, trial_files

RULE = "rule: %s\ntitle: {zh: 赢, en: Won}\nowner: x\nwhen: crm.opportunity.won\ndo:\n  - task.create: {in: pm, title: a}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "rules").mkdir()
    (tmp_path / "hub.yaml").write_text("connectors: {pm: {use: http}}\n", "utf-8")
    (tmp_path / "rules" / "won.yaml").write_text(RULE % "won", "utf-8")
    return tmp_path


def names(home: Path) -> list[str]:
    return [rule.name for rule in Home.load(home, {}).rules.rules]


@pytest.mark.parametrize(
    "name", ["._won.yaml", ".won.yaml", "won.yaml~", "#won.yaml#", ".#won.yaml", ".won.yaml.swp", "~won.yaml"]
)
def test_what_editors_leave_is_passed_over(home: Path, name: str) -> None:
    (home / "rules" / name).write_bytes(b"\0\5\26\7\0\2\xb0\xff")
    assert names(home) == ["won"]
    assert check_home(home, {}) == []


def test_a_folder_is_no_rule(home: Path) -> None:
    (home / "rules" / "old.yaml").mkdir()
    (home / "rules" / "old.test.yaml").mkdir()
    assert names(home) == ["won"]
    assert check_home(home, {}) == []


@pytest.mark.parametrize("name", ["more.YAML", "more.yml", "More.Yml"])
def test_every_spelling_of_yaml_is_read(home: Path, name: str) -> None:
    (home / "rules" / name).write_text(RULE % "more", "utf-8")
    assert sorted(names(home)) == ["more", "won"]


def test_trials_go_with_their_rule_in_every_spelling(home: Path) -> None:
    for name in ("won.test.yaml", "More.Test.YML"):
        (home / "rules" / name).write_text("tests: []", "utf-8")
    found = trial_files(home / "rules")
    assert [rule_of(file) for file in found] == ["More.YML", "won.yaml"]
    assert [file.name for file in rule_files(home / "rules")] == ["won.yaml"]


def test_a_rule_in_a_folder_below_is_told(home: Path) -> None:
    (home / "rules" / "sales").mkdir()
    (home / "rules" / "sales" / "x.yaml").write_text(RULE % "x", "utf-8")
    (home / "rules" / ".git").mkdir()
    (home / "rules" / ".git" / "y.yaml").write_text("", "utf-8")
    assert nested_files(home / "rules") == ["sales/x.yaml"]
    assert [(found.error.code, found.is_error) for found in check_home(home, {})] == [("HUB-W1024", False)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_env_is_read_as_every_editor_saves_it(home: Path, encoding: str, newline: str) -> None:
    lines = ["FIRST=一", "# note", "export SECOND='2'", "THIRD=a=b"]
    (home / ".env").write_bytes(newline.join(lines).encode(encoding))
    seen = Home.load(home, {}).environ
    assert [seen[name] for name in ("FIRST", "SECOND", "THIRD")] == ["一", "2", "a=b"]


@pytest.mark.parametrize(
    "file", [".env", "hub.yaml", "people.yaml", "calendar.yaml", "rules/won.yaml", "rules/won.test.yaml"]
)
@pytest.mark.parametrize(
    ("raw", "word"),
    [("名: 1\n".encode("utf-16"), "UTF-16"), ("a: 1\n名: 1\n".encode("gbk"), "GBK"), (b"a: \0\n", "NUL")],
)
def test_another_encoding_is_named(home: Path, file: str, raw: bytes, word: str) -> None:
    (home / file).write_bytes(raw)
    try:
        found = [finding.error for finding in check_home(home, {})]
    except FatalError as error:
        found = [error]
    assert [error for error in found if error.code == "HUB-E3008" and error.place and error.place.file == file]
    assert word in found[0].message("en")


def test_the_line_of_a_foreign_character_is_told() -> None:
    (error,) = read_bytes("a: 1\nb: 2\nc: 名\n".encode("gbk"), "hub.yaml", {}).errors
    assert "line 3" in error.message("en")
    assert "第 3 行" in error.message("zh-CN")


@pytest.mark.parametrize("levels", [4, 8, 12])
def test_merge_keys_have_an_end(levels: int) -> None:
    text = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 8)}]}}\n" for n in range(1, levels + 1)
    )
    began = time.process_time()
    located = parse_yaml(text, "rules/a.yaml", {})
    assert time.process_time() - began < 2.0
    if levels > 4:
        assert [error.code for error in located.errors] == ["HUB-E3002"]


def test_merge_keys_within_bounds_work() -> None:
    located = parse_yaml("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\n", "a.yaml", {})
    assert located.value["more"] == {"y": 3, "x": 1}
