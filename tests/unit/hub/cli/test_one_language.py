"""One language throughout, that of the person: HUB_LANG, else the system's, else the home's. Nothing of the other slips in."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from hub.cli import terminal
from hub.cli.demo import DEALS, FAILURE_HELP, LARGE_DEAL
from hub.cli.init import TEMPLATES, templates
from hub.cli.main import app
from hub.cli.terminal import COMMAND_GROUPS, SINGLE_COMMANDS
from hub.errors import LANGUAGES, HubError, chosen_language
from hub.ops import connector_checks

ROOT = Path(__file__).parents[4]
CHINESE = re.compile(r"[\u4e00-\u9fff]")
SENTENCE = re.compile(r"\b[A-Za-z][a-z]+(?: [a-z]+){3,}\b")
"""Four English words in a row."""


def ran(language: str, *words: str | Path) -> str:
    """All that a command prints, as a person of that language runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUB_LANG", language)
        patch.setattr(terminal.speech, "language", language)
        patch.setattr(sys, "argv", ["hub"])
        patch.setattr(terminal.speech, "home", None)
        done = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, HubError), done.exception
            return done.output + "\n".join(terminal.explain(done.exception))
        return done.output


@pytest.fixture(scope="module", params=LANGUAGES)
def spoken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """A language, a home from `hub init` in it, and what `init` said."""
    folder = tmp_path_factory.mktemp("one") / "home"
    return request.param, folder, ran(request.param, "init", folder)


BARE = re.compile(rf"(?<![\w./-])hub (?:{SINGLE_COMMANDS}|{COMMAND_GROUPS})\b(?! [a-z]+ --home| --home)")
"""A command that does not say which home it is for."""
WARNED = {"demo": ["HUB-W3143"]}
"""Of the person whose account the demo leaves out."""
COMMANDS = (
    "validate", "doctor", "status", "parked", "parked --refused", "parked list", "connectors list", "connectors describe http",
    "rules list", "rules test", "rules history", "config show --origin", "events tail", "why O-1", "audit",
    "rebuild tasks", "backup", "explain HUB-E1012", "down", "up nonsense", "parked retry",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_speaks_one_language(spoken: tuple[str, Path, str], command: str) -> None:
    language, home, _ = spoken
    words = command.split()
    said = ran(language, *words, *([] if words[0] == "explain" else ["--home", str(home)]))
    _is_in(language, said)
    hints = [
        line for line in said.splitlines() if not line.startswith(("Usage:", "Try ")) and words[1:2] != ["describe"]
    ]
    bare = [line for line in hints if BARE.search(line)]
    assert bare == [] or words[0] == "explain", "commands work as they are printed"


def test_a_home_from_init_is_in_one_language(spoken: tuple[str, Path, str]) -> None:
    language, home, said = spoken
    _is_in(language, said)
    for file in (path for path in home.rglob("*") if path.is_file() and ".hub" not in path.parts):
        _is_in(language, file.read_text("utf-8"), str(file.relative_to(home)))
    assert f"\nlanguage: {language}" in (home / "hub.yaml").read_text("utf-8")


def _is_in(language: str, said: str, where: str = "") -> None:
    for line in said.splitlines():
        if language == "en":
            others = CHINESE.search(re.sub(r"zh: [^,}]+", "", line))
        else:
            others = SENTENCE.search(re.sub(r"en: [^,}]+", "", line))
        assert others is None, f"{where}: {line}"


@pytest.mark.parametrize("template", templates())
def test_a_template_means_the_same_in_both(tmp_path: Path, template: str) -> None:
    found = {}
    for language in LANGUAGES:
        home = tmp_path / language
        ran(language, "init", home, "--template", template)
        files = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
        found[language] = {
            name: _shape(yaml.safe_load((home / name).read_bytes())) for name in files if name[-4:] == "yaml"
        }
        assert [
            line["finding"]["code"] for line in connector_checks.validate(home, ()) if "finding" in line
        ] == WARNED.get(template, [])
        assert "✘" not in ran(language, "rules", "test", "--home", home)
        for name in files:
            _is_in(language, (home / name).read_text("utf-8"), name)
    assert found["zh-CN"] == found["en"]


def _shape(value: Any) -> Any:
    """A file without its words: what is Chinese in one is not so in the other."""
    if isinstance(value, dict):
        return {
            key: _shape(each) for key, each in value.items() if key not in ("name", "title", "language", "zh", "en")
        }
    if isinstance(value, list):
        return [_shape(each) for each in value]
    if isinstance(value, str):
        return re.findall(r"\$\{[^}]*\}", value) or (
            value if re.fullmatch(r"[\x21-\x7e]+", value) and value.islower() else ""
        )
    return value


def test_the_languages_that_a_template_folder_is_for() -> None:
    assert all((TEMPLATES / language).is_dir() for language in LANGUAGES)


def test_the_demo_s_business_is_in_the_language_of_the_person() -> None:
    for language in LANGUAGES:
        words = " ".join(f"{deal.name} {deal.customer}" for deal in (*DEALS[language], LARGE_DEAL[language]))
        assert bool(CHINESE.search(words)) is (language == "zh-CN")
        _is_in(language, words + FAILURE_HELP[language])
    assert [deal.amount for deal in DEALS["en"]] == [deal.amount for deal in DEALS["zh-CN"]]


def helps(group: typer.Typer) -> Iterator[str]:
    """Every text of help that is in the command tree."""

    def below(command: Any) -> Iterator[str]:
        yield from filter(None, (command.help, *(getattr(parameter, "help", None) for parameter in command.params)))
        for inner in getattr(command, "commands", {}).values():
            yield from below(inner)

    yield from below(typer.main.get_command(group))


def test_every_help_is_there_in_both() -> None:
    for told in helps(app):
        zh, mark, en = told.partition(" · ")
        if mark and CHINESE.search(zh):
            _is_in("zh-CN", zh)
            _is_in("en", en)
        else:
            assert not CHINESE.search(told), told
            assert told.startswith("Install") or told.startswith("Show") or not SENTENCE.search(told), told


def pairs(file: Path) -> Iterator[tuple[int, str, str]]:
    """Every `text("…", "…")` of a program file."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "text":
            told = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if len(told) == 2:
                yield node.lineno, str(told[0]), str(told[1])


@pytest.mark.parametrize("file", sorted((ROOT / "hub" / "cli").glob("*.py")), ids=lambda file: file.name)
def test_no_text_of_a_command_is_in_the_other_language(file: Path) -> None:
    for number, zh, en in pairs(file):
        _is_in("zh-CN", zh, f"{file.name}:{number}")
        _is_in("en", en, f"{file.name}:{number}")


@pytest.mark.parametrize("part", ["hub", "hub/web"])
def test_no_text_of_a_catalogue_is_in_the_other_language(part: str) -> None:
    def below(value: Any, language: str | None) -> None:
        if isinstance(value, dict):
            for key, each in value.items():
                below(each, key if key in LANGUAGES else language)
        elif isinstance(value, str) and language == "en" and value != "中文":  # the way to the other language
            _is_in("en", value)

    below(yaml.safe_load((ROOT / part / "texts.yaml").read_bytes()), None)


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ({"LANG": "C.UTF-8"}, None), ({"LANG": "en_GB.UTF-8"}, "en"), ({"LANG": "en_GB.UTF-8", "LC_ALL": "zh_CN.UTF-8"}, "zh-CN"),
        ({"LANG": "zh_CN.UTF-8", "HUB_LANG": "en"}, "en"), ({}, None),
    ],
)  # fmt: skip
def test_the_person_s_language(monkeypatch: pytest.MonkeyPatch, told: dict[str, str], wanted: str | None) -> None:
    for name in ("HUB_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert chosen_language() == wanted


def test_a_home_decides_where_the_person_has_not(tmp_path: Path) -> None:
    for language, other in (("en", "zh_CN.UTF-8"), ("zh-CN", "en_US.UTF-8")):
        home = tmp_path / language
        ran(language, "init", home)
        assert _status(home, "C.UTF-8") is (language == "zh-CN")
        assert _status(home, other) is (language == "en")


def _status(home: Path, locale: str) -> bool:
    """Whether it speaks Chinese."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "LC_", "LANG"))}
    command = [sys.executable, "-m", "hub.cli.main", "parked", "--home", str(home)]
    done = subprocess.run(
        command, env={**kept, "LANG": locale, "PYTHONUTF8": "1"}, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return CHINESE.search(done.stdout) is not None
