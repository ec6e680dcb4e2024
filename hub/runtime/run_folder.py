"""What a running hub leaves for others to find: who supervises it, which programs it has, where its broker and its pages are."""

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
    """`.hub/run`: a lock that only a living supervisor holds, and its notes."""

    path: Path

    @property
    def socket(self) -> Path:
        """Where the boards' server listens, behind the front door. See `hub.runtime.files` for what the system limits."""
        return self.path / "boards.sock"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Be the only supervisor of this home; raises FatalError while another is."""
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
        """Write the notes, whole or not at all. One thread at a time: see `Supervisor`."""
        draft = self.path / "notes.json.new"
        draft.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
        draft.replace(self.path / "notes.json")

    def notes(self) -> dict[str, Any]:
        """The notes of the hub that runs; empty when none does."""
        if not self.is_claimed():
            return {}
        try:
            found: dict[str, Any] = orjson.loads((self.path / "notes.json").read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return found

    def is_claimed(self) -> bool:
        """Whether a supervisor lives."""
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True

    def stop(self, patience: float) -> bool:
        """Tell the supervisor to end and wait for it; False when it has not within `patience` seconds."""
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
