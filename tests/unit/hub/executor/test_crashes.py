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
from dataclasses import dataclass
from pathlib import Path

import pytest

from hub.kit.connector import Idempotency
from hub.ledger.ledger import Ledger
from tests.crashing_executor import asked
from tests.executor_bench import Bench
from tests.process_state import stands_still

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
pytestmark = pytest.mark.slow
CLASSES = [Idempotency.KEY, Idempotency.LOOKUP]


@dataclass(frozen=True)
class Place:
    """Where a test's programs work: their ledger, and a folder for the system's memory."""

    folder: Path
    url: str

    @property
    def effects(self) -> Path:
        """What the system has done, a line for each effect."""
        return self.folder / "effects"


@pytest.fixture
def place(ledger: Ledger, tmp_path: Path) -> Place:
    """A place of the test's own."""
    return Place(tmp_path, ledger.engine.url.render_as_string(hide_password=False))


@contextmanager
def program(place: Place, once: Idempotency, fail: str = "", cases: int = CASES) -> Iterator[subprocess.Popen[str]]:
    """The executor in a process of its own; gone when the block ends."""
    arguments = [
        sys.executable,
        "-m",
        "tests.crashing_executor",
        str(place.folder),
        place.url,
        once.name,
        str(cases),
        str(EACH),
    ]
    environment = {**os.environ, "HUB_FAIL": fail}
    child = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with child:
            yield child
    finally:
        child.kill()


def finish(place: Place, once: Idempotency, fail: str = "", cases: int = CASES) -> int:
    with program(place, once, fail, cases) as child:
        _, said = child.communicate(timeout=60)
        assert child.returncode in (0, KILLED), said
        return child.returncode


def check(place: Place, ledger: Ledger, cases: int = CASES) -> None:
    """All is done, once, in order."""
    wanted = asked(cases, EACH)
    done = place.effects.read_text().split()
    assert Counter(done) == Counter(command.id for command in wanted)
    for case in {command.case for command in wanted}:
        ours = [command.id for command in wanted if command.case == case]
        assert [id_ for id_ in done if id_ in ours] == ours
    bench = Bench(ledger)
    assert {row.state for row in bench.rows().values()} == {"DONE"}
    told = [event.causationid for event in bench.events() if event.type.endswith(".created")]
    assert Counter(told) == Counter(command.id for command in wanted)
    assert len(bench.events("work.task.requested")) == cases * (EACH - 1)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("once", CLASSES)
def test_dying_at_every_boundary_in_turn(place: Place, ledger: Ledger, once: Idempotency) -> None:
    for nth, point in enumerate(POINTS):
        assert finish(place, once, f"{point}:{1 + nth % 3 if nth else 1}:exit") == KILLED, point
    assert finish(place, once) == 0
    check(place, ledger)


@pytest.mark.parametrize("once", CLASSES)
def test_dying_at_any_moment(place: Place, ledger: Ledger, once: Idempotency) -> None:
    moments = random.Random(once.name)
    for _ in range(4):
        with program(place, once) as child:
            until(functools.partial(_works, child, place.effects, _count(place.effects)))
            time.sleep(moments.uniform(0, 0.03))
            child.kill()
    assert finish(place, once) == 0
    check(place, ledger)


@pytest.mark.parametrize("point", ["executor.before-call", "executor.called"])
def test_one_that_stood_still_and_wakes_late_does_nothing_twice(place: Place, ledger: Ledger, point: str) -> None:
    # One case, so that nothing else is under way: a request that is half written when the process stops, nobody can call back.
    with program(place, Idempotency.LOOKUP, f"{point}:2:stop", cases=1) as sleeper:
        until(lambda: stands_still(sleeper.pid))
        assert finish(place, Idempotency.LOOKUP, cases=1) == 0
        sleeper.send_signal(signal.SIGCONT)
        _, said = sleeper.communicate(timeout=60)
        assert sleeper.returncode == 0, said
    check(place, ledger, cases=1)


def _works(child: subprocess.Popen[str], effects: Path, before: int) -> bool:
    return child.poll() is not None or _count(effects) > before


def _count(effects: Path) -> int:
    return len(effects.read_text().split()) if effects.exists() else 0
