"""What holds for every command: quick help, both languages, `--home` and `--json`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer

from hub.cli.main import app
from tests.unit.hub.cli.conftest import Hub

HEAVY = (
    "fastapi",
    "sqlalchemy",
    "confluent_kafka",
    "faust",
    "cel_expr_python",
    "pydantic",
    "requests",
    "holidays",
    "orjson",
)
NO_HOME = {"demo", "init", "explain"}


def leaves(
    group: typer.Typer, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], typer.models.CommandInfo]]:
    """Every command with its words."""
    for command in group.registered_commands:
        yield (*path, str(command.name)), command
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from leaves(inner.typer_instance, (*path, str(inner.name)))


COMMANDS = dict(leaves(app))


def test_help_needs_nothing_that_is_slow_to_import() -> None:
    code = f"import sys, hub.cli.main; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == []


def test_a_home_is_read_without_its_databases() -> None:
    code = "import sys, hub.home, hub.ops.supervisor; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "False"


def test_every_command_that_the_design_names_is_there() -> None:
    named = ["init", "demo", "up", "run", "down", "status", "doctor", "validate", "why", "rebuild", "audit"]
    groups = {
        "connectors": "list check",
        "events": "tail show",
        "rules": "list test dry-run",
        "parked": "list show retry discard",
    }
    pairs = [(group, name) for group, names in groups.items() for name in names.split()]
    assert {*((name,) for name in named), *pairs} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_speaks_to_machines_and_in_both_languages(path: tuple[str, ...], hub: Hub) -> None:
    shown = hub(*path, "--help").out
    assert ("--json" in shown) is (path != ("run",)), "a program writes its log as JSON lines"
    assert ("--home" in shown) is (path[-1] not in NO_HOME)
    told = COMMANDS[path].help or COMMANDS[path].callback.__doc__ or ""
    assert re.search(r"[\u4e00-\u9fff]", told)
    assert re.search(r"· .*[a-z]{3}", told)
