"""A child process that its starter can watch, read and outlive, and that does not outlive its starter."""

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
STREAMS = 3
TAIL = 400
"""So many of its last lines are remembered: the disk may be what failed, so they are kept in memory."""


class Process:
    """One run of one program. It gets SIGTERM when this Python dies (Linux), and no signals of this terminal (Ctrl-C)."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: dict[str, str],
        sink: Sink | None = None,
        inherits: Sequence[int] = (),
    ) -> None:
        """`sink` is given each line of its output, from a thread of its own; `inherits` are open files that it gets, too."""
        self.inherits = tuple(inherits)
        if any(number < STREAMS for number in self.inherits):
            raise ValueError(
                "a child's own streams have the descriptors 0 to 2: hub.runtime.program.begin was not called"
            )
        self.command, self.directory, self.environment, self._sink = list(command), directory, environment, sink
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._popen: subprocess.Popen[str] | None = None
        self._refused: OSError | None = None
        self._begun, self._ended = threading.Event(), threading.Event()
        # Linux tells a child of its parent's death when the *thread* that forked it ends: so this one stays for as long.
        self._thread = threading.Thread(target=self._live, name="child", daemon=True)

    def start(self) -> None:
        """Return once the program is launched. Raises OSError when it can't be."""
        self._thread.start()
        self._begun.wait()
        if self._refused is not None:
            raise self._refused

    def _live(self) -> None:
        try:
            child = self._launch()
        except OSError as error:
            self._refused = error
            self._begun.set()
            return
        self._popen = child
        self._begun.set()
        try:
            with child:
                for line in child.stdout or ():
                    self._take(line.rstrip())
        finally:
            self._ended.set()

    def _take(self, line: str) -> None:
        """A sink that fails must end neither the reading, or the child blocks, nor what waits for its end."""
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
        return self._begun.is_set() and self._refused is None and not self._ended.is_set()

    def wait(self, timeout: float) -> int | None:
        """Its return code (negative: killed by that signal), or None when it still runs after `timeout` seconds."""
        return self._child.returncode if self._ended.wait(timeout) else None

    def join(self) -> int:
        """Wait for its end; its return code."""
        self._ended.wait()
        return int(self._child.returncode)

    def stop(self, grace: float) -> int:
        """SIGTERM, up to `grace` seconds, SIGKILL. Returns its code after its end."""
        self._child.send_signal(signal.SIGTERM)
        if self.wait(grace) is None:
            self._child.kill()
        return self.join()

    def kill(self) -> None:
        """SIGKILL, which ends a process that stands still, too; returns at once."""
        self._child.kill()

    @property
    def _child(self) -> subprocess.Popen[str]:
        if self._popen is None:
            raise RuntimeError("not started")
        return self._popen


def stands_still(pid: int) -> bool:
    """Whether a process was stopped (SIGSTOP) and does nothing until somebody continues it. One under a debugger does not count."""
    return _state_of(pid) == "T"


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended: one that nobody has waited for yet has."""
    return _state_of(pid) not in ("", "Z")


def _state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return ""  # it has gone
    except (OSError, IndexError):
        return ""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, encoding="utf-8", check=False)
    return told.stdout.strip()[:1]
