"""How a program of the hub says that it is ready, so that `hub up` need not guess."""

from __future__ import annotations

import os
import threading
from pathlib import Path

AGAIN = 1.0
"""Seconds until a note that could not be written is tried again."""


def _note(data: Path, program: str) -> Path:
    """The file by which a program says that it is ready: it holds its process id."""
    return data / "run" / f"{program}.ready"


def say_ready(data: Path, program: str) -> None:
    """For the program itself: say that it is ready."""
    note = _note(data, program)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(os.getpid()), "ascii")
    except OSError:
        # A full disk is no reason not to work: it is said once there is room.
        later = threading.Timer(AGAIN, say_ready, (data, program))
        later.daemon = True
        later.start()


def is_ready(data: Path, program: str, pid: int | None) -> bool:
    """Whether this very process has said that it is ready."""
    try:
        return pid is not None and _note(data, program).read_text("ascii") == str(pid)
    except FileNotFoundError:
        return False
