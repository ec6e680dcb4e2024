"""A program under test: its lines as they come, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from tests.process_state import stands_still


def until(holds: Callable[[], bool], what: str | Callable[[], str], seconds: float = 30.0) -> None:
    """Wait for a condition; it has to hold within the time. `what` says what was waited for, and may be asked only then."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.02)


class Program:
    """A child process, with its standard output and error as one list of lines."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            encoding="utf-8",
            errors="replace",
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self, line: str) -> bool:
        return line in self.lines

    def wait_for(self, line: str, seconds: float = 30.0) -> None:
        """Wait until it says exactly this; it must not end before."""
        until(lambda: self.said(line) or not self.running, line, seconds)
        assert self.said(line), f"ended with {self.process.poll()} before it said {line!r}: {self.last_words()}"

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ended(self, seconds: float = 30.0) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def end(self, number: signal.Signals = signal.SIGKILL, seconds: float = 30.0) -> int:
        """Send it a signal and wait for its end."""
        self.process.send_signal(number)
        return self.ended(seconds)

    def is_stopped(self) -> bool:
        """Whether it stands still by SIGSTOP."""
        return stands_still(self.pid)

    def last_words(self) -> str:
        return "\n".join(self.lines[-20:])

    def close(self) -> None:
        """Kill it, should it still run."""
        if self.running:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
