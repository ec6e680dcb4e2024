"""Stops, again and again, of programs that have something to say while whoever should hear it has gone."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from hub.cli.up import UpReporter, running
from hub.home import Home
from hub.log.event_log import EventLog
from hub.log.memory_log import MemoryLog
from hub.ops.programs import ProgramPlan, SupervisedProgram
from hub.ops.supervisor import Supervisor
from tests.acceptance.running import until
from tests.process_state import is_running

ROUNDS = int(os.environ.get("HUB_TEST_STOPS", "5"))
ALARM = json.dumps({"program": "sleeper", "code": "HUB-E4001", "level": "error", "reason": "away"})
CHATTERS = f"""
import itertools, json, time
for number in itertools.count():
    print({ALARM!r}.replace("away", f"away {{number}}").replace("sleeper", f"sleeper {{number}}"), flush=True)
    time.sleep(0.002)
"""


class Small(Supervisor):
    """A hub without a broker, of programs that never stop to complain."""

    def start(self) -> None:
        for name in ("processor", "connectors", "projector"):
            plan = ProgramPlan(
                name, [sys.executable, "-c", CHATTERS], Path.cwd(), dict(os.environ), Path(self._log_of(name))
            )
            program = SupervisedProgram(plan, self._on_program_event, self._on_log_line)
            self.programs.append(program)
            program.start()
        until(lambda: all(p.process is not None and p.process.tail for p in self.programs), 30, "all complain")

    def log(self) -> EventLog:  # type: ignore[override]  # in memory
        return MemoryLog()


class Gone(UpReporter):
    """Speaks into a pipe that nobody reads any more."""

    def __call__(self, what: str, facts: Mapping[str, Any]) -> None:
        raise BrokenPipeError


@pytest.fixture
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_stop_comes_to_its_end(tmp_path: Path, round_: int) -> None:
    (tmp_path / "hub.yaml").write_text("name: small\nkafka: {bootstrap: '127.0.0.1:1'}\n", "utf-8")
    supervisor = Small(Home.load(tmp_path, {}), Gone())
    with pytest.raises(BrokenPipeError):
        told_twice(supervisor)
    pids = [program.process.pid for program in supervisor.programs if program.process is not None]
    assert len(pids) == 3
    assert not any(map(is_running, pids))


def told_twice(supervisor: Supervisor) -> None:
    """Run it until the signals of one Ctrl-C, which a program and its group both get."""
    with running(supervisor, Gone()):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(30)
