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


def memory_mb(pid: int) -> tuple[float, float]:
    """What is resident now, and at most so far. Raises OSError or IndexError for one that is gone."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, most = (int(status.partition(name)[2].split()[0]) / 1024 for name in ("VmRSS:", "VmHWM:"))
    return now, most
