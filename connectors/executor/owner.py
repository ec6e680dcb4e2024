"""Who carries a command out: one executor in one process on one machine, in a way that its successor can tell it is dead."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path


def new_owner() -> str:
    """A name for an executor of this process: machine, process, when the process began, and a part that nobody else has."""
    return f"{_machine()}/{os.getpid()}/{_began(os.getpid())}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether an owner is surely gone. False for one of another machine: of that only its deadline tells."""
    machine, pid, began, _ = owner.split("/")
    return machine == _machine() and _began(int(pid)) != began


def _machine() -> str:
    """This boot of this machine and its process ids, so that two containers never judge each other's."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux: the network card and the name have to do
        return f"{uuid.getnode():x}.{socket.gethostname()}"


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return _lives(pid)


def _lives(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "there"
    return "" if Path("/proc/self/stat").exists() else "there"
