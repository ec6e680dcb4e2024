"""Trims the outbox in the background: rows that the log has had for long enough go, and their keys stay.

The log itself is read, from where the last look ended, so that nothing goes that is not there. Where only one broker keeps it, as
the embedded one does, a row waits until a backup has it too. Each transaction is short and takes its turn with all others; a crash
in the middle of one leaves everything as it was, and the next start goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Connection

from hub.coordination import Lease
from hub.errors import RetryableError
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.ledger import identity, retention, trimmed
from hub.ledger.ledger import Ledger
from hub.ledger.trimmed import Floor
from hub.ledger.trimming import Chosen, MovedError, Read, choose, seen, trim
from hub.log.event_log import EventLog, Record, read_to_end
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work
from schemas.topics import EVENTS

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TrimmingPace:
    """How gently it goes about it: seconds, unless it says otherwise."""

    first: float = 30.0
    """Until the first look."""
    look: float = 600.0
    """Between looks, each of which goes on until nothing is due; with a short history as much less."""
    stuck: float = 3600.0
    """Until a partition is looked at again whose next row the log lacks."""
    locked: float = 0.01
    """That a transaction should take: the next one gets more rows or fewer."""
    rest: float = 4.0
    """Times as long as the last transaction took: what others get, before the next."""
    least: int = 100
    most: int = 1000
    """Rows of one transaction."""


class Trimmer:
    """`run` is for one thread, `stop` for any."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        clock: Clock,
        recall: LedgerCatchUp,
        keep: timedelta,
        *,
        pace: TrimmingPace | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._ledger, self._events, self._clock, self._recall = ledger, events, clock, recall
        self._keep, self._pace = keep, pace or TrimmingPace()
        self._lease = lease or Lease("trim", clock, 60.0)
        self._size = self._pace.least
        self._not_before: dict[int, float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Trim until stopped; log and ledger may be away meanwhile."""
        between = min(self._pace.look, max(0.2, self._keep.total_seconds() / 100))
        wait = min(self._pace.first, between)
        while not self._stopping.wait(wait):
            wait = between
            try:
                gone = self.look()
            except RetryableError as error:
                log.info("trim.waits", **error.fields())
                continue
            if gone:
                log.info("trim.done", events=gone)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present transaction."""
        self._stopping.set()

    def look(self) -> int:
        """Trim all that is due; how many rows went."""
        if not self._recall.is_sure:
            return 0
        with at_work("trim"):
            of = self._events
            name, starts, ends = of.identity(EVENTS.name), of.starts(EVENTS.name), of.ends(EVENTS.name)
            copies = of.copies(EVENTS.name)
        with self._ledger.reading() as conn:
            floors, of_log = trimmed.floors_of(conn), f"{name} {identity.last_cut(conn)}".strip()
            known = identity.known(conn, identity.COPIES)
            limits = ends if copies > 1 else _backed_up(conn, name, ends)
        if known != str(copies):
            self._ledger.writer.run(lambda conn: identity.note(conn, identity.COPIES, str(copies)))
        gone = 0
        for partition, limit in sorted(limits.items()):
            floor = floors.get(partition, Floor(partition))
            # Offsets of another log mean other records: it is read from its start, and what is trimmed is passed over.
            first = max(starts[partition], floor.next_offset if floor.log == of_log else 0)
            if first < limit and self._clock.monotonic() >= self._not_before.get(partition, 0.0):
                after = self._partition(floor, Read(of_log, first, limit))
                gone += after.events - floor.events
        return gone

    def _partition(self, floor: Floor, read: Read) -> Floor:
        """Trim one partition as far as it is due; its floor then."""
        first = read.first
        for records in self._due(floor.partition, read):
            while records and not self._stopping.is_set():
                part, records = records[: self._size], records[self._size :]
                end = part[-1].offset + 1
                with at_work("trim"):
                    with self._ledger.reading() as conn:
                        wanted = choose(conn, floor, seen(part, self._ledger.outbox_id), Read(read.log, first, end))
                    failpoint("trim.chosen")
                    after, took = self._carried_out(wanted)
                self._stopping.wait(self._pace.rest * took)
                if after is None:
                    return floor
                floor, first = after, end
                if wanted.is_barred:
                    self._bar(floor)
                    return floor
        return floor

    def _due(self, partition: int, read: Read) -> Iterator[list[Record]]:
        """What the log has had for long enough, in batches."""
        until = (self._clock.now() - self._keep).timestamp()
        for batch in read_to_end(self._events, EVENTS.name, {partition: read.first}, limit=self._pace.most):
            due = [record for record in batch if record.offset < read.end and record.time <= until]
            if due:
                yield due
            if len(due) < len(batch) or self._stopping.is_set():
                return

    def _carried_out(self, wanted: Chosen) -> tuple[Floor | None, float]:
        """Trim in one transaction; the floor then, None when it is not ours to do now, and how many seconds that was."""
        if wanted.floor == wanted.before:
            return wanted.before, 0.0
        took = [0.0]

        def work(conn: Connection) -> Floor | None:
            began = time.monotonic()
            if not self._recall.is_sure or not self._lease.mine(conn):
                return None
            after = trim(conn, wanted)
            took[0] = time.monotonic() - began
            return after

        began = time.monotonic()
        try:
            after = self._ledger.writer.run(work)
        except MovedError:
            return None, 0.0
        self._suit(took[0], len(wanted.rows))
        return after, time.monotonic() - began

    def _suit(self, took: float, rows: int) -> None:
        """Choose how many rows the next transaction gets, so that it takes as long as it should."""
        if rows:
            fitting = int(rows * self._pace.locked / max(took, 1e-6))
            self._size = max(self._pace.least, min(self._pace.most, fitting, 2 * self._size))

    def _bar(self, floor: Floor) -> None:
        """Leave a partition alone for a while whose next row may not go."""
        if floor.stuck is not None:
            log.warning("trim.stuck", partition=floor.partition, sequence=floor.stuck)
            self._not_before[floor.partition] = self._clock.monotonic() + self._pace.stuck


def _backed_up(conn: Connection, name: str, ends: Mapping[int, int]) -> Mapping[int, int]:
    """Partition → the offset from which on no backup has what is there."""
    backup = retention.of_log(conn, name)
    return {p: min(end, backup.next_offsets.get(p, 0)) for p, end in ends.items()} if backup is not None else {}
