"""`hub validate`: place, line, caret, suggestion; and an exit code that a pipeline can use."""

from __future__ import annotations

from pathlib import Path

from hub.cli.validate import lines
from hub.errors import FatalError, Place
from hub.expressions.complaints import width
from tests.unit.hub.cli.conftest import Hub


def test_a_sound_home_passes_and_a_wrong_one_tells_where(home: Path, hub: Hub) -> None:
    ran = hub("validate", "--home", home)
    assert (ran.code, ran.out) == (0, "✔ nothing is wrong\n")
    rule = home / "rules" / "won_deal.yaml"
    rule.write_text(rule.read_text().replace("in: desk\n      to:", "in: dekk\n      to:"))
    ran = hub("validate", "--home", home)
    assert ran.code == 3
    assert ran.out.splitlines()[0].startswith("rules/won_deal.yaml:25:11  HUB-E3165  hub.yaml has no connector 'dekk'")
    assert ran.out.splitlines()[1:4] == ["  25 |       in: dekk", "     |           ^", "  → did you mean desk?"]


def test_warnings_do_not_fail(home: Path, hub: Hub) -> None:
    people = home / "people.yaml"
    people.write_text(people.read_text().replace("accounts: {crm: U-3}", "accounts: {cmr: U-3}"))
    ran = hub("validate", "--home", home, "--json")
    assert ran.code == 0
    assert (ran.json["ok"], ran.json["warnings"]) == (True, 1)
    (found,) = ran.json["findings"]
    assert (found["severity"], found["code"], found["file"]) == ("warning", "HUB-W3144", "people.yaml")
    assert found["fix"] == "did you mean crm?"


def test_a_mistake_in_people_is_no_mistake_of_the_rules_that_name_them(home: Path, hub: Hub) -> None:
    people = home / "people.yaml"
    people.write_text(people.read_text().replace("accounts: {crm: U-3}", "accounts: {crm: [U-3]}"))
    ran = hub("validate", "--home", home, "--json")
    assert (ran.code, {found["file"] for found in ran.json["findings"]}) == (3, {"people.yaml"})


def test_a_line_of_env_that_sets_nothing_is_told(home: Path, hub: Hub) -> None:
    with (home / ".env").open("a", encoding="utf-8") as file:
        file.write("\nCRM_TOKEN secret\n=x\nA-B=1\n# a note = no value\n")
    ran = hub("validate", "--home", home, "--json")
    lines = len((home / ".env").read_text(encoding="utf-8").splitlines())
    told = [(found["code"], found["line"]) for found in ran.json["findings"]]
    assert (ran.code, told) == (0, [("HUB-W1025", line) for line in (lines - 3, lines - 2, lines - 1)])
    assert "secret" not in ran.out


def test_a_folder_that_is_no_home(tmp_path: Path, hub: Hub) -> None:
    ran = hub("validate", "--home", tmp_path)
    assert (ran.code, ran.error and ran.error.code) == (3, "HUB-E1001")


def test_the_caret_stands_under_the_character_also_behind_chinese(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("name: 接力 soon\n", "utf-8")
    error = FatalError("HUB-E3001", place=Place("hub.yaml", 1, 10), setting="a", expected="30", got="soon")
    shown = list(lines(tmp_path, error))
    assert shown[1:3] == ["   1 | name: 接力 soon", "     | " + " " * 11 + "^"]
    assert width("接力 a") == 6


def test_long_lines_are_cut_round_the_place(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("x" * 500 + "!" + "y" * 500, "utf-8")
    shown = list(lines(tmp_path, FatalError("HUB-E3004", place=Place("hub.yaml", 1, 501))))
    assert len(shown[1]) < 200
    assert shown[1][shown[2].index("^")] == "!"


def test_a_place_that_cannot_be_shown_still_tells_the_error(tmp_path: Path) -> None:
    error = FatalError("HUB-E3008", place=Place("people.yaml", 3, 1), reason="gone")
    assert [line[:12] for line in lines(tmp_path, error)] == ["people.yaml:", "  → check th"]


def test_only_the_files_that_are_named_are_told_of(home: Path, hub: Hub) -> None:
    """Rules name people and systems: all is read, and the rest is counted."""
    people, rule = home / "people.yaml", home / "rules" / "won_deal.yaml"
    people.write_text(people.read_text("utf-8").replace("accounts: {crm: U-3}", "accounts: {cmr: U-3}"), "utf-8")
    rule.write_text(rule.read_text("utf-8").replace("in: desk\n      to:", "in: dekk\n      to:"), "utf-8")
    ran = hub("validate", people)  # the home is the one that it lies in
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "✔ errors: 0, warnings: 1; 1 more in other files")
    ran = hub("validate", home / "rules", "--json")
    assert ran.code == 3
    assert ([each["code"] for each in ran.json["findings"]], ran.json["elsewhere"]) == (["HUB-E3165"], 1)
    assert hub("validate", home).out.count("HUB-") == 2
    assert hub("validate", home / "nothing").code == 2


def test_strict_takes_warnings_for_errors(home: Path, hub: Hub) -> None:
    assert hub("validate", "--home", home, "--strict").code == 0
    people = home / "people.yaml"
    people.write_text(people.read_text("utf-8").replace("accounts: {crm: U-3}", "accounts: {cmr: U-3}"), "utf-8")
    assert hub("validate", "--home", home, "--strict").code == 3
