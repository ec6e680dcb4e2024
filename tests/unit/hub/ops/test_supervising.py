"""Keeping programs running: restarts, notes, and who may supervise."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.home import Home
from hub.ops.programs import FIRST_PAUSE_S, MAX_PAUSE_S, STEADY_RUN_S, BackOff, ProgramPlan, SupervisedProgram
from hub.ops.supervisor import Supervisor
from hub.runtime.process import is_suspended
from hub.runtime.program import is_ready, mark_ready
from hub.runtime.run_folder import RunFolder
from hub.runtime.watchdog import HEARTBEAT_VARIABLE, Heartbeat, HeartbeatMonitor
from tests.acceptance.running import until


def program(folder: Path, code: str, said: list[tuple[str, int | None]]) -> SupervisedProgram:
    def told(_name: str, what: str, number: int | None, _last: Sequence[str]) -> None:
        said.append((what, number))

    plan = ProgramPlan(
        "sleeper", [sys.executable, "-c", code], folder, dict(os.environ), folder / "logs" / "sleeper.log"
    )
    return SupervisedProgram(plan, told)


def test_pauses_grow_while_a_program_keeps_ending_and_are_forgotten_once_it_ran_well() -> None:
    back_off = BackOff()
    pauses = [back_off.after(0.1) for _ in range(12)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MAX_PAUSE_S
    assert back_off.after(STEADY_RUN_S) == FIRST_PAUSE_S


def test_a_program_that_is_killed_is_started_again_and_stops_when_told(tmp_path: Path) -> None:
    said: list[tuple[str, int | None]] = []
    kept = program(tmp_path, "import time; print('up', flush=True); time.sleep(60)", said)
    kept.start()
    until(lambda: kept.pid is not None, 10, "it runs")
    first = kept.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: kept.pid not in (None, first), 10, "it runs again")
    until(lambda: kept.process is not None and "up" in kept.process.tail, 10, "it says so")
    kept.stop(5)
    assert kept.pid is None
    assert ("ended", -signal.SIGKILL) in said
    assert kept.restarts == 1
    assert "up" in (tmp_path / "logs" / "sleeper.log").read_text("utf-8")


BEATS = """
import asyncio
from hub.runtime.watchdog import Heartbeat

async def live():
    Heartbeat.of_environment().follow(asyncio.get_running_loop())
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(live())
"""


def test_a_program_that_stands_still_is_killed_and_started_again(tmp_path: Path) -> None:
    said: list[tuple[str, int | None]] = []
    kept = program(tmp_path, BEATS, said)
    kept.start()
    until(lambda: kept.process is not None and "up" in kept.process.tail, 10, "it runs")
    first = kept.pid
    assert first is not None
    now = iter(range(1000))
    until(lambda: kept.poll(next(now)) == "well" and kept._stalls.has_beaten, 10, "it beats")
    os.kill(first, signal.SIGSTOP)
    until(lambda: is_suspended(first), 10, "it stands still")
    found = [kept.poll(next(now)) for _ in range(10)]
    assert found[:2] == ["well", "well"]
    assert found[4] == "frozen"
    assert "dead" in found
    until(lambda: kept.pid not in (None, first), 10, "it runs again")
    assert kept.poll(next(now)) == "well"
    kept.stop(5)
    assert ("ended", -signal.SIGKILL) in said


def test_a_heart_beats_only_into_the_pipe_that_it_was_given(tmp_path: Path) -> None:
    pulse = HeartbeatMonitor.new()
    assert not pulse.beaten()
    heart = Heartbeat.of_environment(pulse.environment)
    heart.beat()
    assert pulse.beaten()
    assert not pulse.beaten()
    other = os.open(tmp_path / "precious", os.O_CREAT | os.O_RDWR)
    stranger = {HEARTBEAT_VARIABLE: f"{other}:{os.fstat(other).st_ino}"}
    for environ in (stranger, {HEARTBEAT_VARIABLE: f"{pulse.writing}:1"}, {HEARTBEAT_VARIABLE: "no"}, {}):
        Heartbeat.of_environment(environ).beat()
    assert os.fstat(other).st_size == 0
    assert not pulse.beaten()
    for _ in range(200_000):
        heart.beat()  # nobody reads: it never waits
    os.close(other)
    pulse.close()
    heart.beat()


def test_an_alarm_of_a_program_is_said_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "hub.yaml").write_text("name: small\n", "utf-8")
    said: list[tuple[str, Mapping[str, object]]] = []
    supervisor = Supervisor(Home.load(tmp_path, {}), lambda what, facts: said.append((what, facts)))
    written = {"program": "sleeper", "code": "HUB-E3110", "level": "error", "reason": "broken"}
    kept = program(tmp_path, f"import time; print({json.dumps(json.dumps(written))}, flush=True); time.sleep(60)", [])
    kept.on_line = supervisor._on_log_line
    kept.start()
    until(lambda: bool(said), 10, "the alarm is said")
    kept.stop(5)
    assert said == [("alarm", {"level": "error", "program": "sleeper", "code": "HUB-E3110", "reason": "broken"})]


def test_one_supervisor_a_home(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.claim():
        run.note(pid=4711)
        assert run.is_claimed()
        assert run.notes() == {"pid": 4711}
        with pytest.raises(FatalError, match="HUB-E1010"), RunFolder(tmp_path / "run").claim():
            pass
    assert not run.is_claimed()
    assert run.notes() == {}


def test_notes_of_a_supervisor_that_was_killed_count_for_nothing(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.note(pid=4711)
    assert run.notes() == {}
    assert run.stop(1.0)


def test_many_keepers_may_note_at_once(tmp_path: Path) -> None:
    from hub.home import Home
    from hub.ops.supervisor import Supervisor

    (tmp_path / "hub.yaml").write_text("name: small\n", "utf-8")
    supervisor = Supervisor(Home.load(tmp_path, {}), lambda what, facts: None)
    failures: list[BaseException] = []

    def note() -> None:
        try:
            for _ in range(200):
                supervisor._note()
        except BaseException as error:
            failures.append(error)

    with supervisor.run.claim():
        threads = [threading.Thread(target=note) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert supervisor.run.notes()["pid"] == os.getpid()
    assert failures == []


def test_a_disk_without_room_for_a_log_keeps_no_program_from_running(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder can be made here")
    said: list[tuple[str, int | None]] = []
    kept = program(tmp_path, "import time; print('up', flush=True); time.sleep(60)", said)
    kept.start()
    until(lambda: kept.pid is not None and kept.process is not None and "up" in kept.process.tail, 10, "it runs")
    first = kept.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: kept.pid not in (None, first), 10, "it runs again")
    kept.stop(5)


def test_notes_that_find_no_room_are_written_once_there_is_some(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hub.yaml").write_text("name: full\nkafka: {bootstrap: '127.0.0.1:1'}\n")
    supervisor = Supervisor(Home.load(tmp_path / "home"), lambda what, facts: None)
    run = supervisor.run.path
    run.parent.mkdir(parents=True)
    run.write_text("no folder")
    supervisor._on_program_event("processor", "started", 1, ())
    mark_ready(supervisor.home.data, "processor")
    run.unlink()
    run.mkdir()
    until((run / "notes.json").exists, 10, "the notes are written")
    until((run / "processor.ready").exists, 10, "the program says that it is ready")
    assert is_ready(supervisor.home.data, "processor", os.getpid())
