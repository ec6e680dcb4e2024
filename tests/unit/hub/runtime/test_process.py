from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hub.runtime import process
from hub.runtime.process import Process


def python(script: str, directory: Path) -> Process:
    return Process([sys.executable, "-c", script], directory, {"LC_ALL": "C.UTF-8"})


def test_tells_its_code_and_what_it_said(tmp_path: Path) -> None:
    child = python(
        "import os, sys; print(os.getcwd(), flush=True); print('错', file=sys.stderr); sys.exit(3)", tmp_path
    )
    child.start()
    assert child.join() == 3
    assert child.wait(0) == 3
    assert not child.running
    assert list(child.tail) == [str(tmp_path), "错"]


def test_remembers_the_last_lines_only(tmp_path: Path) -> None:
    child = python(f"for number in range({process.TAIL_LINES + 5}): print(number)", tmp_path)
    child.start()
    child.join()
    assert (child.tail[0], len(child.tail)) == ("5", process.TAIL_LINES)


def test_stops_one_that_heeds(tmp_path: Path) -> None:
    child = python("import time; time.sleep(60)", tmp_path)
    child.start()
    assert child.wait(0) is None
    assert child.running
    assert child.stop(grace=20) == -signal.SIGTERM
    assert child.stop(grace=20) == -signal.SIGTERM


def test_kills_one_that_does_not(tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    child = python(script, tmp_path)
    child.start()
    deadline = time.monotonic() + 20
    while not child.tail:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert child.stop(grace=0.1) == -signal.SIGKILL


def test_a_sink_that_fails_holds_up_neither_the_child_nor_its_end(tmp_path: Path) -> None:
    """`hub demo` hung in "stopping…" so: its reader had gone, and the thread that reads a program's words with it."""

    def gone(_line: str) -> None:
        raise BrokenPipeError

    script = "for number in range(20_000): print('a word that has to be taken', number)"
    child = Process([sys.executable, "-c", script], tmp_path, {"LC_ALL": "C.UTF-8"}, sink=gone)
    child.start()
    assert child.wait(30) == 0
    assert child.stop(grace=1) == 0


def test_has_its_own_process_group(tmp_path: Path) -> None:
    """Ctrl-C in the terminal must reach the hub alone: it stops its broker last."""
    child = python("import os; print(os.getpgrp())", tmp_path)
    child.start()
    child.join()
    assert int(child.tail[0]) == child.pid != os.getpgrp()


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    child = python("", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError):
        child.start()
    assert not child.running


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    child = Process(["/nowhere/java"], tmp_path, {})
    child.start()
    assert child.join() == 1
    assert "FileNotFoundError" in child.tail[-1]


def test_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """Linux sends the death signal when the forking thread ends, which must not be the caller's."""
    child = python("import time; time.sleep(1); print('lived')", tmp_path)
    caller = threading.Thread(target=child.start)
    caller.start()
    caller.join()
    assert child.join() == 0
    assert list(child.tail) == ["lived"]


def test_dies_with_its_python(tmp_path: Path) -> None:
    starter = f"""
import sys, time
from pathlib import Path
from hub.runtime.process import Process
child = Process([sys.executable, "-c", "import time; time.sleep(60)"], Path({str(tmp_path)!r}), {{}})
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.01)


def test_is_not_begun_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    tether = str(Path(process.__file__).with_name("tether.py"))
    stranger = [sys.executable, "-I", "-S", tether, "1", sys.executable, "-c", "print('ran')"]
    done = subprocess.run(stranger, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")


def test_has_no_number_before_its_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        _ = python("", tmp_path).pid
