"""A contender's programs while they run: their CPU time and size, their children's included, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.process_state import memory_mb

ROOT = Path(__file__).parents[2]
"""Of the repository; programs that are modules of it are found from there."""


class Programs:
    """Started together, watched and ended together."""

    def __init__(self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], folder: Path) -> None:
        """Start them; what each says goes to a file in `folder`."""
        self._started: list[subprocess.Popen[bytes]] = []
        for number, command in enumerate(commands, 1):
            with (folder / f"program-{number}.log").open("wb") as out:
                self._started.append(
                    subprocess.Popen(
                        command,
                        env={**os.environ, **environment},
                        cwd=ROOT,
                        stdin=subprocess.DEVNULL,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )

    def ended(self) -> int | None:
        """The code of one that has ended by itself; None while all run."""
        return next((code for each in self._started if (code := each.poll()) is not None), None)

    def cpu_seconds(self) -> float:
        """Used so far by all that run."""
        return sum(cpu_seconds(pid) for pid in self._pids())

    def peak_mb(self) -> float:
        """The largest size of each, added up."""
        return sum(memory_mb(pid)[1] for pid in self._pids())

    def stop(self) -> None:
        """SIGTERM to each, and SIGKILL to what is there 20 seconds later."""
        for program in self._started:
            program.send_signal(signal.SIGTERM)
        for program in self._started:
            try:
                program.wait(20)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

    def _pids(self) -> list[int]:
        return [pid for program in self._started for pid in _family(program.pid)]


def _family(pid: int) -> Iterator[int]:
    """A process and those that it started, and so on."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end while it is asked
            for child in thread.read_text().split():
                yield from _family(int(child))


def cpu_seconds(pid: int) -> float:
    """That a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
