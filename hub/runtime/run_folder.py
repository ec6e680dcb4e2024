"""What a running hub publishes in `.hub/run`: the supervisor's process id, its programs, the addresses of broker and web pages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hub.errors import FatalError


@dataclass(frozen=True)
class RunFolder:
    """`.hub/run`: a lock that only a running supervisor holds, and `notes.json`."""

    path: Path

    @property
    def socket(self) -> Path:
        """The socket of the boards' server. See `hub.runtime.files` for the length limit."""
        return self.path / "boards.sock"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Hold the supervisor lock of this home; raises FatalError while another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FatalError("HUB-E1010", pid=self.notes().get("pid", "?"), home=self.path.parent.parent) from error
            try:
                yield
            finally:
                (self.path / "notes.json").unlink(missing_ok=True)

    def note(self, **facts: Any) -> None:
        """Write the notes atomically. One thread at a time: see `Supervisor`."""
        draft = self.path / "notes.json.new"
        draft.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        draft.replace(self.path / "notes.json")

    def notes(self) -> dict[str, Any]:
        """The notes of the running hub; empty when none runs."""
        if not self.is_claimed():
            return {}
        try:
            notes: dict[str, Any] = orjson.loads((self.path / "notes.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return notes

    def is_claimed(self) -> bool:
        """Whether a supervisor is running."""
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def stop(self, patience: float) -> bool:
        """Send SIGTERM to the supervisor and wait for its end; False when it still runs after `patience` seconds."""
        pid = self.notes().get("pid")
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)
        deadline = time.monotonic() + patience
        while self.is_claimed():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True
