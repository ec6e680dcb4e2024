"""Outbox → log: every committed event is sent until the log has acknowledged it, in the order of its sequence.

A sequence is given in a transaction, and sent only after that has committed; rows that a crash left unacknowledged are sent
again before any new one. So the log may hold an event twice and never lacks one, also when two relays believe in their lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import structlog
from sqlalchemy import Connection

from hub.coordination import Lease
from hub.errors import FatalError, RejectedError, RetryableError
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.ledger.outbox import Waiting
from hub.log.event_log import EventLog, LogWriter, Outgoing
from hub.log.sequences import with_number
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work, beat
from schemas.envelope import format_time
from schemas.topics import EVENTS, PARTITIONS

MOST = 500
"""New rows in one round."""
LOOK = 0.1
"""Seconds between looks for what other programs have committed; commits of this one wake the relay at once."""
LEASE = 6.0
"""Seconds until another program may take the job over from one that sleeps. Two at work at once repeat events, no more."""
PATIENCE, SLOWEST = 10.0, 1_000_000
"""Seconds to wait for the log's acknowledgement, and bytes a second that it must at least take."""
BREATH, LONGEST, FULL = 0.004, 0.1, 100
"""Seconds between rounds under load, at most, and how many events a round carries then. A round costs much the same for one event
as for twenty, here and with every reader of the log: near to what they can carry there are few rounds, and far from it many."""
AGAIN = 0.5
"""Seconds until the next try when log or ledger are away, or when another program has the job."""

log = structlog.get_logger(__name__)


class Relay:
    """Carries the outbox into `hub.events`. `run` is for one thread; `wake`, `stop` and `drained` are for any."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        clock: Clock,
        lease: Lease | None = None,
        recall: LedgerCatchUp | None = None,
    ) -> None:
        self._ledger, self._events, self._clock = ledger, events, clock
        self._recall = recall or LedgerCatchUp(ledger, events, clock)
        self._lease = lease or Lease("relay", clock, LEASE)
        self._writer: LogWriter | None = None
        self._sent: list[int] = []
        self._sent_at = 0.0
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._away_since: float | None = None

    def run(self) -> None:
        """Relay until stopped. Raises FatalError for what waiting cannot mend."""
        self._ledger.writer.on_commit(self.wake)
        try:
            while not self._stopping.is_set():
                with at_work("relay"):
                    self._turn()
        finally:
            self._close()
        self._lease.leave(self._ledger)

    def wake(self) -> None:
        """Look now: something may have been committed."""
        self._awake.set()

    def stop(self) -> None:
        """End `run` after its present turn."""
        self._stopping.set()
        self._awake.set()

    def drained(self, seconds: float) -> bool:
        """Wait until nothing is left to relay, at most so long; whether that came true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self._sent and not self._waiting(beyond=0):
                return True
            self.wake()
            time.sleep(0.02)
        return False

    @property
    def leading(self) -> bool:
        """Whether this program is the one that relays."""
        return self._lease.held

    @property
    def away_for(self) -> float | None:
        """For how many seconds log or ledger have been away; None while they are there."""
        return None if self._away_since is None else self._clock.monotonic() - self._away_since

    def _turn(self) -> None:
        """Send what there is, then wait for more."""
        try:
            while self._round() and not self._stopping.wait(breath(len(self._sent))):
                pass
            self._awake.wait(LOOK)
        except RetryableError as error:
            self._lost(error)
            self._stopping.wait(AGAIN)

    def _round(self) -> bool:
        """Mark what was sent, send what is next. False when there is nothing to do, or another relay does it."""
        self._awake.clear()
        beat()
        if not self._recall.is_sure:
            self._recall.make_sure()
            self._sent = []  # by another history of the database, these may be other rows; they are sent again
        if not self._mark_is_due() and not self._waiting(beyond=len(self._sent)):
            return False
        sent = self._sent
        rows = self._ledger.writer.run(lambda conn: self._take(conn, sent))
        self._sent = []
        if not self._lease.held:
            self._stopping.wait(AGAIN)
        if rows:
            failpoint("relay.taken")
            self._send(rows)
            failpoint("relay.delivered")
            self._sent, self._sent_at = [row.id for row in rows], self._clock.monotonic()
        self._back()
        return bool(rows)

    def _mark_is_due(self) -> bool:
        """What was sent is marked with what is taken next; by itself only after a while: a commit makes others wait."""
        return bool(self._sent) and self._clock.monotonic() - self._sent_at >= LOOK

    def _waiting(self, beyond: int) -> bool:
        """Whether there is more that is not marked as sent than so many rows."""
        with self._ledger.reading() as conn:
            return outbox.waiting(conn, beyond)

    def _take(self, conn: Connection, sent: Sequence[int]) -> list[Waiting]:
        if not self._recall.is_sure:
            return []
        outbox.publish(conn, sent, format_time(self._clock.now()))  # true whoever has the job now
        return outbox.take(conn, MOST, PARTITIONS) if self._lease.mine(conn) else []

    def _send(self, rows: Sequence[Waiting]) -> None:
        name = self._ledger.outbox_id
        records = [
            Outgoing(EVENTS.name, row.case.encode(), with_number(row.body, row.sequence, name), row.partition)
            for row in rows
        ]
        if self._writer is None:
            self._writer = self._events.writer()
        try:
            self._writer.append(records, _patience(records))
        except RejectedError as error:
            raise FatalError(error.code, **error.seen) from error  # the door lets nothing in that the log refuses
        except RetryableError:
            self._close()
            raise

    def _close(self) -> None:
        """Drop the writer with all that it has not sent: a late part of a batch must not come behind a newer one."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _lost(self, error: RetryableError) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            log.warning("relay.waits", **error.fields())

    def _back(self) -> None:
        if self._away_since is not None:
            log.info("relay.goes_on", after_seconds=round(self.away_for or 0.0, 1))
            self._away_since = None


def breath(carried: int) -> float:
    """Seconds to wait after a round that carried so many events."""
    return min(LONGEST, BREATH + (LONGEST - BREATH) * (carried / FULL) ** 2)


def _patience(records: Sequence[Outgoing]) -> float:
    """Seconds after which the log is held to be away: enough for a slow one to take what is sent."""
    return PATIENCE + sum(len(record.value or b"") for record in records) / SLOWEST
