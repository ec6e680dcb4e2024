"""Failpoints: every boundary that a crash may fall on has one, and arming one does what it says."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.runtime.failpoints import NAMES

ROOT = Path(__file__).parents[4]
SOURCES = [file for folder in ("hub", "connectors", "projections") for file in sorted((ROOT / folder).rglob("*.py"))]

WAISTS = {
    "producer.produce": {"hub/log/kafka_writers.py"},
    "engine.begin": {"hub/ledger/database.py"},
    "conn.begin": {"hub/ledger/database.py"},
    "conn.commit": set[str](),
}
"""Call → the only files that may make it: whatever leaves the process or lasts goes through a place that has failpoints."""
OF_DATABASES = {f"{which}.{when}" for which in ("ledger", "boards") for when in ("before-commit", "committed")}
SPOKEN_TO_DIRECTLY = {"hub/ledger/migrations/env.py"}
"""Alembic's own transaction: a schema is made or it is not, and nothing is accepted before."""


def calls() -> Iterator[tuple[str, str, list[str]]]:
    """File, the last two names of what is called, and its plain text arguments, of every call in the sources."""
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = ".".join(ast.unparse(node.func).split(".")[-2:])
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                yield file.relative_to(ROOT).as_posix(), name, texts


def test_each_name_has_one_place_and_each_place_a_name() -> None:
    reached = [texts[0] for _, name, texts in calls() if name == "failpoint" and texts]
    assert sorted(reached) == sorted(NAMES - OF_DATABASES)


def test_everything_durable_goes_through_a_waist_that_has_failpoints() -> None:
    found: dict[str, set[str]] = {name: set() for name in WAISTS}
    for file, name, _ in calls():
        if name in WAISTS and file not in SPOKEN_TO_DIRECTLY:
            found[name].add(file)
    assert found == WAISTS
    places = {file for file, name, _ in calls() if name == "failpoint"}
    assert set().union(*WAISTS.values()) | {"hub/kit/transport.py"} - {"hub/ledger/database.py"} <= places


def test_connectors_speak_http_by_the_transport_that_has_failpoints() -> None:
    """A `requests.Session` is made there alone."""
    made = {file for file, name, _ in calls() if name.endswith("requests.Session")}
    assert made == {"hub/kit/transport.py"}


PROGRAM = """
from hub.runtime.failpoints import failpoint
for number in range(1, 6):
    print(number, flush=True)
    failpoint("http.written")
    failpoint("http.answered")
"""


def passes(setting: str) -> tuple[list[str], int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "HUB_FAIL": setting}, capture_output=True, text=True
    )
    return done.stdout.split(), done.returncode


def test_the_nth_pass_ends_the_process() -> None:
    assert passes("http.answered:3:exit") == (["1", "2", "3"], 137)
    assert passes("http.answered:1:raise") == (["1"], 1)
    assert passes("") == (["1", "2", "3", "4", "5"], 0)


def test_a_plan_in_a_file_is_carried_out_once(tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    assert passes(f"@{plan}") == (["1", "2", "3", "4", "5"], 0)
    plan.write_text("http.written:2:exit")
    assert passes(f"@{plan}") == (["1", "2"], 137)
    assert plan.read_text() == ""
    assert passes(f"@{plan}")[1] == 0


def test_a_name_that_no_place_has_is_refused(tmp_path: Path) -> None:
    for setting in ("http.nowhere:1:exit", "http.answered:1:dance"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={**os.environ, "HUB_FAIL": setting}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "HUB_FAIL names no failpoint" in done.stderr


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_say_who_and_when(name: str) -> None:
    who, _, when = name.partition(".")
    assert who in {"log", "ledger", "http", "worker", "intake", "poller", "relay", "trim", "executor", "boards"}
    assert when
