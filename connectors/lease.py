"""A job that one program at a time may do, kept by a lease in the ledger and checked in every transaction of the job."""

from __future__ import annotations

import contextlib

from sqlalchemy import Connection

from connectors.owner import is_dead, new_owner
from hub.clock import Clock
from hub.errors import RetryableError
from hub.ledger import leases
from hub.ledger.ledger import Ledger


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
