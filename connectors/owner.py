"""Who carries a command out: one executor in one process on one machine, in a way that its successor can tell it is dead."""

from __future__ import annotations

import functools
import os
import socket
import uuid
from pathlib import Path

GONE = ""
UNKNOWN = "-"
"""When a process began: there is none, and it is there but does not say."""


def new_owner() -> str:
    """A name for an executor of this process: machine, process, when the process began, and a part that nobody else has."""
    return f"{_machine()}/{os.getpid()}/{_began(os.getpid())}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether an owner is surely gone. False for one of another machine, or of another make: of that only its deadline tells."""
    machine, _, of_process = owner.partition("/")
    if machine != _machine():
        return False
    pid, began, _ = of_process.split("/")
    now = _began(int(pid))
    return now not in (began, UNKNOWN)


@functools.cache
def _machine() -> str:
    """This boot of this machine and its process ids, so that two containers never judge each other's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux: the network card and the name have to do
        return f"{uuid.getnode():x}.{socket.gethostname()}"


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks. One that was killed and not yet waited for is gone."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return UNKNOWN if _answers(pid) else GONE
    return GONE if state in "ZX" else rest[18]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        pass
    return True
