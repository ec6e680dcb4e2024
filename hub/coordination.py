"""Who carries a command out: one executor in one process on one machine, in a way that its successor can tell it is dead.

A job that one program at a time may do, kept by a lease in the ledger and checked in every transaction of the job.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import uuid
from pathlib import Path

from sqlalchemy import Connection

from hub.errors import RetryableError
from hub.ledger import leases
from hub.ledger.ledger import Ledger
from hub.runtime.clock import Clock


class Lease:
    """`mine` asks for the job and keeps it; renewed when a third of its time has passed. For one thread."""

    def __init__(self, job: str, clock: Clock, seconds: float = 15.0, owner: str | None = None) -> None:
        self.job, self.owner = job, owner or new_owner()
        self._clock, self._seconds = clock, seconds
        self._epoch: int | None = None
        self._renewed = 0.0

    @property
    def held(self) -> bool:
        """Whether the job was ours when last asked."""
        return self._epoch is not None

    def mine(self, conn: Connection) -> bool:
        """Whether the job is ours in this transaction. What the transaction writes counts only if it is.

        A program that slept through its lease learns here that another has the job.
        """
        now = self._clock.monotonic()
        if self._epoch is not None and now - self._renewed < self._seconds / 3:
            if leases.holds(conn, self.job, self.owner, self._epoch):
                return True
            self._epoch = None
            return False
        before, self._epoch = self._epoch, self._acquired(conn)
        self._renewed = now
        return self._epoch is not None and before in (None, self._epoch)

    def _acquired(self, conn: Connection) -> int | None:
        """Our epoch. A lease whose program was killed on this machine need not run out first."""
        epoch = leases.acquire(conn, self.job, self.owner, self._seconds)
        holder = leases.owner_of(conn, self.job) if epoch is None else None
        if holder is None or not is_dead(holder):
            return epoch
        leases.let_go(conn, self.job, holder)
        return leases.acquire(conn, self.job, self.owner, self._seconds)

    def let_go(self, conn: Connection) -> None:
        """Give the job up, so that the next program need not wait."""
        self._epoch = None
        leases.let_go(conn, self.job, self.owner)

    def leave(self, ledger: Ledger) -> None:
        """Give the job up at the end of the program, if it is ours; with the ledger away it runs out by itself."""
        if self.held:
            with contextlib.suppress(RetryableError):
                ledger.writer.run(self.let_go)


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
