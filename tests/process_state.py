"""How a process is, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def state_of(pid: int) -> str:
    """`R`, `S`, `D`, `T` for one that stands still, `Z` for one that has ended and that nobody has collected; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended: in a container nobody may collect it."""
    return state_of(pid) not in ("", "Z")


def stands_still(pid: int) -> bool:
    """Whether it was stopped by SIGSTOP."""
    return state_of(pid) == "T"
