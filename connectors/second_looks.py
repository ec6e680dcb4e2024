"""What intake put off, looked at again: news held until their case is known, and parked deliveries that a person asked about."""

from __future__ import annotations

import threading

import structlog
from sqlalchemy import Connection

from connectors import casing
from connectors.lease import Lease
from connectors.redelivery import Redelivery
from hub.clock import Clock
from hub.errors import RetryableError
from hub.hung_threads import at_work
from hub.ledger.ledger import Ledger

PAUSE = 0.5
"""Seconds between looks when this program commits nothing; another program may."""
AGAIN = 2.0
"""Seconds until the next try while the ledger is away."""
BREATH = 0.1
"""Seconds between looks under load: what is looked for is rare, and a look takes time from who commits."""

MANY = 5.0
"""A look may take so many times as long as other work: a person may have asked about thousands of entries at once."""

log = structlog.get_logger(__name__)


class SecondLooks:
    """One thread's work, woken by commits and by time. `run` ends after `stop`."""

    def __init__(self, ledger: Ledger, redelivery: Redelivery, clock: Clock, lease: Lease | None = None) -> None:
        self._ledger, self._redelivery = ledger, redelivery
        self._lease = lease or Lease("second-looks", clock)
        self._awake, self._stopping = threading.Event(), threading.Event()

    def run(self) -> None:
        """Look until stopped."""
        self._ledger.writer.on_commit(self._awake.set)
        away = False
        while not self._stopping.is_set():
            self._awake.wait(PAUSE)
            self._awake.clear()
            try:
                with at_work("second-looks", MANY):
                    self.look()
                away = away and self._tell_back()
                self._stopping.wait(BREATH)
            except RetryableError as error:
                if not away:
                    log.warning("second_looks.wait", **error.fields())
                away = True
                self._stopping.wait(AGAIN)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present look."""
        self._stopping.set()
        self._awake.set()

    def look(self) -> None:
        """Look once. Nothing is written unless there is something to do."""
        with self._ledger.reading() as conn:
            due = casing.releasable(conn)
        if due:
            self._ledger.writer.run(self._release)
        self._redelivery.answer(self._lease.mine)

    def _release(self, conn: Connection) -> None:
        if self._lease.mine(conn):
            casing.release(conn)

    def _tell_back(self) -> bool:
        log.info("second_looks.go_on")
        return False
