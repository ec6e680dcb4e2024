"""A program is ready when its process runs, turns, and has said so; the notes alone prove nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hub.health.looking import programs_here
from hub.runtime.program import mark_ready
from hub.runtime.run_folder import RunFolder
from tests.acceptance.running import until
from tests.process_state import stands_still


def states(data: Path) -> dict[str, str]:
    running, programs = programs_here(data, expected=True)
    assert running
    return {program.name: program.state for program in programs}


def test_without_a_supervisor_there_are_none(tmp_path: Path) -> None:
    assert programs_here(tmp_path, expected=True) == (False, ())
    assert programs_here(tmp_path, expected=False) == (None, ())


@pytest.mark.parametrize("name", ["processor", "connectors"])
def test_a_program_is_what_its_process_is(tmp_path: Path, name: str) -> None:
    run = RunFolder(tmp_path / "run")
    with run.claim(), subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        run.note(pid=os.getpid(), programs={name: child.pid}, frozen=[])
        assert states(tmp_path) == {name: "starting"}
        (tmp_path / "run" / f"{name}.ready").write_text(str(child.pid))
        assert states(tmp_path) == {name: "ready"}
        child.send_signal(signal.SIGSTOP)
        until(lambda: stands_still(child.pid), 10, "it stands still")
        assert states(tmp_path) == {name: "frozen"}
        child.kill()
        until(lambda: states(tmp_path) == {name: "down"}, 10, "it is told as down, though nobody has waited for it")


def test_a_program_that_its_supervisor_calls_deaf_is_frozen(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.claim():
        mark_ready(tmp_path, "processor")
        run.note(pid=os.getpid(), programs={"processor": os.getpid()}, frozen=["processor"])
        assert states(tmp_path) == {"processor": "frozen"}
