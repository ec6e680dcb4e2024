"""What the manual tells people to type is there to be typed, and the lines of its first hub work as they stand."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from hub.cli.main import app

ROOT = Path(__file__).parents[2]
MANUALS = ("README.md", "README.zh-CN.md")
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")


def code(manual: str) -> Iterator[str]:
    """Every line of code. In the table of commands the word `hub` stands once a row."""
    text = (ROOT / manual).read_text("utf-8")
    for block in _BLOCK.findall(text):
        yield from block.splitlines()
    for line in _BLOCK.sub("", text).splitlines():
        cell = line.split(" | ")[0] if line.startswith("| `hub ") else ""
        yield from (f"hub {each.removeprefix('hub ')}" for each in _INLINE.findall(cell))
        yield from _INLINE.findall(line.removeprefix(cell))


def commands(manual: str, program: str) -> list[list[str]]:
    """Every line of code that begins with this program, as words, without comments."""
    found = [line.partition("#")[0].replace("\\", "").split() for line in code(manual)]
    return [words[1:] for words in found if words[:1] == [program]]


def known(name: str, group: typer.Typer = app) -> typer.Typer | bool:
    """A group of that name, or whether there is a command of it."""
    inner = {each.name: each.typer_instance for each in group.registered_groups}
    return inner.get(name) or any(each.name == name for each in group.registered_commands)


def alternatives(words: list[str]) -> list[tuple[str, str]]:
    """`parked list|show` as the two that it names."""
    return [(words[0], choice) for choice in (words[1].split("|") if words[1:] else [""])]


@pytest.mark.parametrize("manual", MANUALS)
def test_every_hub_command_that_is_named_is_one(manual: str) -> None:
    named = [pair for words in commands(manual, "hub") for pair in alternatives(words)]
    assert len(named) > 20
    for name, next_word in named:
        group = known(name)
        assert group, f"hub {name}"
        if isinstance(group, typer.Typer) and re.fullmatch(r"[a-z][a-z-]*", next_word):
            assert known(next_word, group), f"hub {name} {next_word}"


@pytest.mark.parametrize("manual", MANUALS)
def test_every_make_target_that_is_named_is_one(manual: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {words[0] for words in commands(manual, "make") if words}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("manual", MANUALS)
def test_every_module_that_is_named_is_one(manual: str) -> None:
    named = {words[1] for words in commands(manual, "python") if words[0] == "-m"}
    assert named
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


def test_both_manuals_name_the_same_commands() -> None:
    english, chinese = (
        {name for words in commands(manual, "hub") for name, _ in alternatives(words)} for manual in MANUALS
    )
    assert english == chinese


def test_the_lines_of_the_first_hub_work_as_they_stand(tmp_path: Path) -> None:
    lines = [words for words in commands("README.md", ".venv/bin/hub") if "--home" in words or words[0] == "init"]
    assert [words[0] for words in lines] == ["init", "validate", "rules", "up"]
    for words in lines[:-1]:  # the last one runs until it is told to stop: tests/acceptance has it
        done = subprocess.run(
            [sys.executable, "-m", "hub.cli.main", *words], cwd=tmp_path, capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stdout}{done.stderr}"
