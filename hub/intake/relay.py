"""The relay, from outbox to log: publishes every committed event in sequence order, at least once.

A sequence is assigned in a transaction, and the event is sent only after the commit; rows that a crash left unacknowledged are
resent before any new one. So the log may contain an event twice but never lacks one, even when two relays believe they hold the
lease.
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
from hub.ledger.outbox import SequencedRow
from hub.log.event_log import EventLog, LogWriter, Outgoing
from hub.log.sequences import with_sequence
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work, beat
from schemas.envelope import format_time
from schemas.topics import EVENTS, PARTITIONS

MAX_BATCH = 500
"""Rows in one batch."""
POLL_INTERVAL_S = 0.1
"""Seconds between polls for commits of other processes; a commit of this one wakes the relay at once."""
LEASE_S = 6.0
"""Seconds until another process may take over from one that has stopped. Two relays at once only cause duplicates."""
ACK_TIMEOUT_S, MIN_BYTES_PER_S = 10.0, 1_000_000
"""Timeout for the log's acknowledgement: these seconds, plus the time the batch takes at this least throughput."""
MIN_BATCH_PAUSE_S, MAX_BATCH_PAUSE_S, FULL_BATCH = 0.004, 0.1, 100
"""Micro-batching: the pause between batches in seconds, from least to most, and the batch size at which the pause is longest. A
batch costs much the same for one event as for twenty, here and for every reader of the log: under high load batches are few and
large."""
RETRY_DELAY_S = 0.5
"""Seconds until the next try when log or ledger is unavailable, or when another process holds the lease."""

log = structlog.get_logger(__name__)


class Relay:
    """Publishes the outbox to `hub.events`. `run` is for one thread; `wake`, `stop` and `drained` are thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        clock: Clock,
        lease: Lease | None = None,
        catch_up: LedgerCatchUp | None = None,
    ) -> None:
        self._ledger, self._events, self._clock = ledger, events, clock
        self._catch_up = catch_up or LedgerCatchUp(ledger, events, clock)
        self._lease = lease or Lease("relay", clock, LEASE_S)
        self._writer: LogWriter | None = None
        self._sent: list[int] = []
        self._sent_at = 0.0
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._away_since: float | None = None

    def run(self) -> None:
        """Relay until stopped. Raises FatalError for errors that waiting cannot resolve."""
        self._ledger.writer.on_commit(self.wake)
        try:
            while not self._stopping.is_set():
                with at_work("relay"):
                    self._relay_all()
        finally:
            self._close()
        self._lease.leave(self._ledger)

    def wake(self) -> None:
        """Poll now: something may have been committed."""
        self._awake.set()

    def stop(self) -> None:
        """End `run` after its present turn."""
        self._stopping.set()
        self._awake.set()

    def drained(self, seconds: float) -> bool:
        """Wait until nothing is left to relay; False after this many seconds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self._sent and not self._waiting(beyond=0):
                return True
            self.wake()
            time.sleep(0.02)
        return False

    @property
    def leading(self) -> bool:
        """Whether this process holds the relay's lease."""
        return self._lease.held

    @property
    def away_for(self) -> float | None:
        """For how many seconds log or ledger have been unavailable; None while both are available."""
        return None if self._away_since is None else self._clock.monotonic() - self._away_since

    def _relay_all(self) -> None:
        """Send all waiting batches, then wait for more."""
        try:
            while self._relay_batch() and not self._stopping.wait(batch_pause(len(self._sent))):
                pass
            self._awake.wait(POLL_INTERVAL_S)
        except RetryableError as error:
            self._note_outage(error)
            self._stopping.wait(RETRY_DELAY_S)

    def _relay_batch(self) -> bool:
        """Mark the last batch as published and send the next. False when there is none, or another relay holds the lease."""
        self._awake.clear()
        beat()
        if not self._catch_up.is_sure:
            self._catch_up.make_sure()
            self._sent = []  # a restored database may have other rows under these ids; they are resent
        if not self._mark_is_due() and not self._waiting(beyond=len(self._sent)):
            return False
        sent = self._sent
        rows = self._ledger.writer.run(lambda conn: self._take(conn, sent))
        self._sent = []
        if not self._lease.held:
            self._stopping.wait(RETRY_DELAY_S)
        if rows:
            failpoint("relay.taken")
            self._send(rows)
            failpoint("relay.delivered")
            self._sent, self._sent_at = [row.id for row in rows], self._clock.monotonic()
        self._note_recovery()
        return bool(rows)

    def _mark_is_due(self) -> bool:
        """Whether to commit the mark by itself. Normally it goes with the next batch, since each commit delays other writers."""
        return bool(self._sent) and self._clock.monotonic() - self._sent_at >= POLL_INTERVAL_S

    def _waiting(self, beyond: int) -> bool:
        """Whether more than `beyond` rows are not marked as published."""
        with self._ledger.reading() as conn:
            return outbox.waiting(conn, beyond)

    def _take(self, conn: Connection, sent: Sequence[int]) -> list[SequencedRow]:
        if not self._catch_up.is_sure:
            return []
        outbox.mark_published(conn, sent, format_time(self._clock.now()))  # correct whichever relay holds the lease now
        return outbox.take(conn, MAX_BATCH, PARTITIONS) if self._lease.mine(conn) else []

    def _send(self, rows: Sequence[SequencedRow]) -> None:
        name = self._ledger.outbox_id
        records = [
            Outgoing(EVENTS.name, row.case.encode(), with_sequence(row.body, row.sequence, name), row.partition)
            for row in rows
        ]
        if self._writer is None:
            self._writer = self._events.writer()
        try:
            self._writer.append(records, _ack_timeout(records))
        except RejectedError as error:
            raise FatalError(error.code, **error.seen) from error  # intake accepts no event that the log refuses
        except RetryableError:
            self._close()
            raise

    def _close(self) -> None:
        """Drop the writer with its unsent records, so that a late part of a batch cannot arrive after a newer batch."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _note_outage(self, error: RetryableError) -> None:
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            log.warning("relay.waits", **error.fields())

    def _note_recovery(self) -> None:
        if self._away_since is not None:
            log.info("relay.goes_on", after_seconds=round(self.away_for or 0.0, 1))
            self._away_since = None


def batch_pause(events: int) -> float:
    """Seconds to pause after a batch of so many events."""
    return min(
        MAX_BATCH_PAUSE_S, MIN_BATCH_PAUSE_S + (MAX_BATCH_PAUSE_S - MIN_BATCH_PAUSE_S) * (events / FULL_BATCH) ** 2
    )


def _ack_timeout(records: Sequence[Outgoing]) -> float:
    """The acknowledgement timeout in seconds, long enough for a slow log to accept the batch."""
    return ACK_TIMEOUT_S + sum(len(record.value or b"") for record in records) / MIN_BYTES_PER_S
