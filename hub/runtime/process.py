"""Child processes: the parent reads their output and waits for their end; on Linux they end when the parent dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

Sink = Callable[[str], None]
STANDARD_STREAMS = 3
TAIL_LINES = 400
"""How many of its last output lines stay in memory: the disk itself may have failed."""


class Process:
    """One run of one program. It gets SIGTERM when this process dies (Linux), and no signals of this terminal (Ctrl-C)."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: dict[str, str],
        sink: Sink | None = None,
        inherits: Sequence[int] = (),
    ) -> None:
        """`sink` receives each line of output, on a separate thread; the child inherits the descriptors `inherits`."""
        self.inherits = tuple(inherits)
        if any(number < STANDARD_STREAMS for number in self.inherits):
            raise ValueError(
                "a child's own streams have the descriptors 0 to 2: hub.runtime.program.begin was not called"
            )
        self.command, self.directory, self.environment, self._sink = list(command), directory, environment, sink
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._popen: subprocess.Popen[str] | None = None
        self._launch_error: OSError | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        # Linux signals the parent's death to a child when the *thread* that forked it ends: so this one lives as long as the child.
        self._thread = threading.Thread(target=self._run, name="child", daemon=True)

    def start(self) -> None:
        """Return once the program is launched. Raises OSError when it can't be."""
        self._thread.start()
        self._started.wait()
        if self._launch_error is not None:
            raise self._launch_error

    def _run(self) -> None:
        try:
            child = self._launch()
        except OSError as error:
            self._launch_error = error
            self._started.set()
            return
        self._popen = child
        self._started.set()
        try:
            with child:
                for line in child.stdout or ():
                    self._handle_line(line.rstrip())
        finally:
            self._ended.set()

    def _handle_line(self, line: str) -> None:
        """Store and forward a line. A failing sink must not stop the reading: the child would block, and `wait` never return."""
        self.tail.append(line)
        if self._sink is not None:
            with contextlib.suppress(Exception):
                self._sink(line)

    def _launch(self) -> subprocess.Popen[str]:
        tether = str(Path(__file__).with_name("tether.py"))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", tether, str(os.getpid()), *self.command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            process_group=0,
            pass_fds=self.inherits,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._started.is_set() and self._launch_error is None and not self._ended.is_set()

    def wait(self, timeout: float) -> int | None:
        """The return code (negative: killed by that signal), or None when it still runs after `timeout` seconds."""
        return self._child.returncode if self._ended.wait(timeout) else None

    def join(self) -> int:
        """Wait for its end and return its return code."""
        self._ended.wait()
        return int(self._child.returncode)

    def stop(self, grace: float) -> int:
        """SIGTERM, then SIGKILL after `grace` seconds. Returns the return code once it has ended."""
        self._child.send_signal(signal.SIGTERM)
        if self.wait(grace) is None:
            self._child.kill()
        return self.join()

    def kill(self) -> None:
        """SIGKILL, which also ends a stopped process (SIGSTOP); returns immediately."""
        self._child.kill()

    @property
    def _child(self) -> subprocess.Popen[str]:
        if self._popen is None:
            raise RuntimeError("not started")
        return self._popen


def is_suspended(pid: int) -> bool:
    """Whether a process is stopped (SIGSTOP) until a SIGCONT. One under a debugger does not count."""
    return _state_of(pid) == "T"


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended: a zombie counts as ended."""
    return _state_of(pid) not in ("", "Z")


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""  # it has ended
    except (OSError, IndexError):
        return ""
    ps = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, encoding="utf-8", check=False)
    return ps.stdout.strip()[:1]
