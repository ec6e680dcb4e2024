"""Leases: a job that only one program at a time may run, held by a lease in the ledger and checked in every transaction of the job.

An owner's name identifies machine, process and start time, so that a successor can detect that the owner is dead.
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
    """A lease on one job: `mine` acquires it and renews it once a third of its duration has passed. For one thread."""

    def __init__(self, job: str, clock: Clock, seconds: float = 15.0, owner: str | None = None) -> None:
        self.job, self.owner = job, owner or new_owner()
        self._clock, self._seconds = clock, seconds
        self._epoch: int | None = None
        self._renewed = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease was ours at the last check."""
        return self._epoch is not None

    def mine(self, conn: Connection) -> bool:
        """Whether the lease is ours in this transaction. The transaction may write only if it is.

        Fencing: a program whose lease expired while it was suspended gets False once another program has the lease.
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
        """Our epoch. The lease of a program that was killed on this machine is taken over before it expires."""
        epoch = leases.acquire(conn, self.job, self.owner, self._seconds)
        holder = leases.owner_of(conn, self.job) if epoch is None else None
        if holder is None or not is_dead(holder):
            return epoch
        leases.release(conn, self.job, holder)
        return leases.acquire(conn, self.job, self.owner, self._seconds)

    def let_go(self, conn: Connection) -> None:
        """Release the lease, so that the next program need not wait for its expiry."""
        self._epoch = None
        leases.release(conn, self.job, self.owner)

    def leave(self, ledger: Ledger) -> None:
        """Release the lease at the end of the program, if it is ours; if the ledger is away it expires by itself."""
        if self.held:
            with contextlib.suppress(RetryableError):
                ledger.writer.run(self.let_go)


PROCESS_GONE = ""
START_UNKNOWN = "-"
"""Start times of a process that does not exist, and of one whose start time cannot be read."""


def new_owner() -> str:
    """A unique owner name for this process: machine, process id, start time of the process, and a random part."""
    return f"{_machine()}/{os.getpid()}/{_started(os.getpid())}/{uuid.uuid4().hex[:8]}"


def is_dead(owner: str) -> bool:
    """Whether an owner is certainly dead. False for an owner on another machine: only its lease's expiry shows that."""
    machine, _, of_process = owner.partition("/")
    if machine != _machine():
        return False
    pid, started, _ = of_process.split("/")
    now = _started(int(pid))
    return now not in (started, START_UNKNOWN)


@functools.cache
def _machine() -> str:
    """The machine's boot id and process namespace, so that two containers never check each other's process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux: the network card and the host name have to suffice
        return f"{uuid.getnode():x}.{socket.gethostname()}"


def _started(pid: int) -> str:
    """Start time of a process, in the kernel's ticks. A zombie process counts as gone."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return START_UNKNOWN if _exists(pid) else PROCESS_GONE
    return PROCESS_GONE if state in "ZX" else rest[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process, and alive
        pass
    return True
