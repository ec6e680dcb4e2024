"""`hub up`, run as its users run it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from hub.home import Home
from tests.ports import free_port
from tests.process_state import is_running

HUB = [sys.executable, "-m", "hub.cli.main"]
READY_SECONDS = 240.0


def until(holds: Callable[[], bool], seconds: float, what: str | Callable[[], str]) -> None:
    """Wait for a condition; it has to hold within the time. `what` says what was waited for, and may be asked only then."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what if isinstance(what, str) else what()}"
        time.sleep(0.05)


class RunningHub:
    """One hub on one home, with data of its own."""

    def __init__(self, home: Path, data: Path, environment: Mapping[str, str], command: Sequence[str] = HUB) -> None:
        self.home, self.data, self.port, self.command = home, data, free_port(), command
        self.environment = {
            **os.environ,
            **environment,
            "HUB_DATA": str(data),
            "HUB_WEB_PORT": str(self.port),
            "HUB_LANG": "en",
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it takes pushes and shows boards."""
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / "up.log").unlink(missing_ok=True)
        with (self.data / "up.log").open("ab") as out:
            self.process = subprocess.Popen(
                [*self.command, "up", "--home", str(self.home), "--json"], env=self.environment, stdout=out, stderr=out
            )
        until(self._is_ready, READY_SECONDS, lambda: f"hub up is ready; its last words: {self.last_words()}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"hub up ended: {self.last_words()}"
        return b'"what":"ready"' in (self.data / "up.log").read_bytes()

    def last_words(self) -> str:
        """The end of what it said."""
        log = self.data / "up.log"
        return log.read_text("utf-8", "replace")[-1500:] if log.exists() else ""

    def said(self, what: str) -> int:
        """How often its supervisor has said this."""
        return (self.data / "up.log").read_bytes().count(f'"what":"{what}"'.encode())

    def stop(self) -> None:
        """As Ctrl-C does; it must come to an end in order."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.last_words()

    def end(self) -> None:
        """Kill it with everything it has, should it still run; nothing of it writes to its folder any more afterwards."""
        if self.process is None or self.process.poll() is not None:
            return
        pids = [pid for pid in self.pids().values() if pid is not None] if self._notes.exists() else []
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not any(map(is_running, pids)), 60.0, "all of its programs are gone")

    @property
    def _notes(self) -> Path:
        return self.data / "run" / "notes.json"

    @property
    def client(self) -> dict[str, Any]:
        """librdkafka's settings for its broker, with the hub's own sign-in."""
        notes = orjson.loads(self._notes.read_bytes())
        return Home.load(self.home, self.environment).kafka_client(str(notes["kafka"]))

    def kill(self, program: str) -> bool:
        """kill -9 a program (`worker`, `connectors`, `projections`, `broker`); False when it is not running just now."""
        pid = self.pids().get(program)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
        return False

    def pids(self) -> dict[str, int | None]:
        """Program → its process."""
        found: dict[str, int | None] = orjson.loads(self._notes.read_bytes())["programs"]
        return found

    def run(self, *command: str, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
        """Run a `hub` command on this home."""
        return subprocess.run(
            [*HUB, *command, "--home", str(self.home)],
            env=self.environment, capture_output=True, encoding="utf-8", timeout=timeout, check=False,
        )  # fmt: skip

    def json(self, *command: str, timeout: float = 180.0) -> Any:
        """A command's JSON answer."""
        done = self.run(*command, "--json", timeout=timeout)
        assert done.stdout.strip(), f"{command} said nothing: {done.stderr}"
        return orjson.loads(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def running_hub(
    home: Path, data: Path, environment: Mapping[str, str], command: Sequence[str] = HUB
) -> Iterator[RunningHub]:
    """A hub for the time of the block, run as `command` up; killed with everything it has, should it not stop."""
    hub = RunningHub(home, data, environment, command)
    try:
        hub.start()
        yield hub
        hub.stop()
    finally:
        hub.end()
