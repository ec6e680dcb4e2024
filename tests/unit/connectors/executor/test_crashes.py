"""Whatever crashes and wherever: one effect for each command, one event for each effect, in order."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.connector import Once
from hub.ledger.ledger import Ledger
from tests.crashing_executor import asked
from tests.executor_bench import Bench, open_ledger

POINTS = (
    "executor.accepted",
    "executor.before-sending",
    "executor.sending",
    "executor.before-call",
    "executor.called",
    "executor.before-done",
    "executor.done",
)
CASES, EACH = 8, 4
KILLED = 137
CLASSES = [Once.KEY, Once.MARK]


@contextmanager
def program(folder: Path, once: Once, fail: str = "", cases: int = CASES) -> Iterator[subprocess.Popen[str]]:
    """The executor in a process of its own; gone when the block ends."""
    arguments = [sys.executable, "-m", "tests.crashing_executor", str(folder), once.name, str(cases), str(EACH)]
    environment = {**os.environ, "HUB_FAIL": fail}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with child:
            yield child
    finally:
        child.kill()


def finish(folder: Path, once: Once, fail: str = "", cases: int = CASES) -> int:
    with program(folder, once, fail, cases) as child:
        _, said = child.communicate(timeout=60)
        assert child.returncode in (0, KILLED), said
        return child.returncode


def check(folder: Path, cases: int = CASES) -> None:
    """All is done, once, in order."""
    wanted = asked(cases, EACH)
    done = (folder / "effects").read_text().split()
    assert Counter(done) == Counter(command.id for command in wanted)
    for case in {command.case for command in wanted}:
        ours = [command.id for command in wanted if command.case == case]
        assert [id_ for id_ in done if id_ in ours] == ours
    with ledger_of(folder) as ledger:
        bench = Bench(ledger, folder)
        assert {row.state for row in bench.rows().values()} == {"DONE"}
        told = [event.causationid for event in bench.events() if event.type.endswith(".created")]
        assert Counter(told) == Counter(command.id for command in wanted)
        assert len(bench.events("work.task.requested")) == cases * (EACH - 1)


@contextmanager
def ledger_of(folder: Path) -> Iterator[Ledger]:
    ledger = open_ledger(folder)
    try:
        yield ledger
    finally:
        ledger.close()


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("once", CLASSES)
def test_dying_at_every_boundary_in_turn(tmp_path: Path, once: Once) -> None:
    for nth, point in enumerate(POINTS):
        assert finish(tmp_path, once, f"{point}:{1 + nth % 3 if nth else 1}:exit") == KILLED, point
    assert finish(tmp_path, once) == 0
    check(tmp_path)


@pytest.mark.parametrize("once", CLASSES)
def test_dying_at_any_moment(tmp_path: Path, once: Once) -> None:
    moments = random.Random(once.name)
    effects = tmp_path / "effects"
    for _ in range(4):
        with program(tmp_path, once) as child:
            until(functools.partial(_works, child, effects, _count(effects)))
            time.sleep(moments.uniform(0, 0.03))
            child.kill()
    assert finish(tmp_path, once) == 0
    check(tmp_path)


@pytest.mark.parametrize("point", ["executor.before-call", "executor.called"])
def test_one_that_stood_still_and_wakes_late_does_nothing_twice(tmp_path: Path, point: str) -> None:
    # One case, so that nothing else is under way: a request that is half written when the process stops, nobody can call back.
    with program(tmp_path, Once.MARK, f"{point}:2:stop", cases=1) as sleeper:
        until(lambda: _state(sleeper.pid) == "T")
        assert finish(tmp_path, Once.MARK, cases=1) == 0
        sleeper.send_signal(signal.SIGCONT)
        _, said = sleeper.communicate(timeout=60)
        assert sleeper.returncode == 0, said
    check(tmp_path, cases=1)


def _works(child: subprocess.Popen[str], effects: Path, before: int) -> bool:
    return child.poll() is not None or _count(effects) > before


def _count(effects: Path) -> int:
    return len(effects.read_text().split()) if effects.exists() else 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
