"""How a program of the hub says that it is ready, so that `hub up` need not guess."""

from __future__ import annotations

import os
from pathlib import Path


def _note(data: Path, program: str) -> Path:
    """The file by which a program says that it is ready: it holds its process id."""
    return data / "run" / f"{program}.ready"


def say_ready(data: Path, program: str) -> None:
    """For the program itself: say that it is ready."""
    note = _note(data, program)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(str(os.getpid()), "ascii")


def is_ready(data: Path, program: str, pid: int | None) -> bool:
    """Whether this very process has said that it is ready."""
    try:
        return pid is not None and _note(data, program).read_text("ascii") == str(pid)
    except FileNotFoundError:
        return False
