"""Trims the outbox in the background: deletes rows whose events the log has had for the retention time; their keys remain.

The log itself is read, from where the last run ended, so that no row is deleted whose event is not there. Where only one broker has
the log, as with the embedded one, a row waits until a backup has it too. Each transaction is short and queues with all other
writes; a crash in one rolls it back, and the next start continues.
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
from hub.ledger.trimming import LogRange, MovedError, TrimPlan, logged_events, plan_trim, trim
from hub.log.event_log import EventLog, Record, read_to_end
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work
from schemas.topics import EVENTS

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class TrimmingPace:
    """The pace of trimming, so that it does not delay other work; in seconds, unless noted otherwise."""

    first: float = 30.0
    """Until the first run."""
    look: float = 600.0
    """Between runs, each of which continues until nothing is due; at most a hundredth of the retention time, at least 0.2 s."""
    stuck: float = 3600.0
    """Until the next run on a partition whose next row the log lacks."""
    locked: float = 0.01
    """Target duration of a transaction; the next one gets more rows or fewer accordingly."""
    rest: float = 4.0
    """Pause before the next transaction, as a multiple of the last one's duration."""
    least: int = 100
    most: int = 1000
    """Rows of one transaction."""


class Trimmer:
    """Runs the trimming. `run` is for one thread, `stop` is thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        events: EventLog,
        clock: Clock,
        catch_up: LedgerCatchUp,
        keep: timedelta,
        *,
        pace: TrimmingPace | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._ledger, self._events, self._clock, self._catch_up = ledger, events, clock, catch_up
        self._keep, self._pace = keep, pace or TrimmingPace()
        self._lease = lease or Lease("trim", clock, 60.0)
        self._size = self._pace.least
        self._not_before: dict[int, float] = {}
        self._stopping = threading.Event()

    def run(self) -> None:
        """Trim until stopped; waits while log or ledger is unavailable."""
        between = min(self._pace.look, max(0.2, self._keep.total_seconds() / 100))
        wait = min(self._pace.first, between)
        while not self._stopping.wait(wait):
            wait = between
            try:
                trimmed_events = self.look()
            except RetryableError as error:
                log.info("trim.waits", **error.fields())
                continue
            if trimmed_events:
                log.info("trim.done", events=trimmed_events)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present transaction."""
        self._stopping.set()

    def look(self) -> int:
        """Trim all that is due; returns how many events were trimmed."""
        if not self._catch_up.is_sure:
            return 0
        with at_work("trim"):
            of = self._events
            name, starts, ends = of.identity(EVENTS.name), of.starts(EVENTS.name), of.ends(EVENTS.name)
            copies = of.copies(EVENTS.name)
        with self._ledger.reading() as conn:
            floors, of_log = trimmed.floors_of(conn), f"{name} {identity.last_cut(conn)}".strip()
            known = identity.get_value(conn, identity.COPIES)
            limits = ends if copies > 1 else _backed_up(conn, name, ends)
        if known != str(copies):
            self._ledger.writer.run(lambda conn: identity.set_value(conn, identity.COPIES, str(copies)))
        trimmed_events = 0
        for partition, limit in sorted(limits.items()):
            floor = floors.get(partition, Floor(partition))
            # Offsets of another log denote other records: it is read from its start, and trimmed events are skipped.
            first = max(starts[partition], floor.next_offset if floor.log == of_log else 0)
            if first < limit and self._clock.monotonic() >= self._not_before.get(partition, 0.0):
                after = self._partition(floor, LogRange(of_log, first, limit))
                trimmed_events += after.events - floor.events
        return trimmed_events

    def _partition(self, floor: Floor, read: LogRange) -> Floor:
        """Trim one partition as far as it is due; returns its new floor."""
        first = read.first
        for records in self._due(floor.partition, read):
            while records and not self._stopping.is_set():
                part, records = records[: self._size], records[self._size :]
                end = part[-1].offset + 1
                with at_work("trim"):
                    with self._ledger.reading() as conn:
                        plan = plan_trim(
                            conn, floor, logged_events(part, self._ledger.outbox_id), LogRange(read.log, first, end)
                        )
                    failpoint("trim.chosen")
                    after, took = self._execute(plan)
                self._stopping.wait(self._pace.rest * took)
                if after is None:
                    return floor
                floor, first = after, end
                if plan.is_barred:
                    self._pause_if_stuck(floor)
                    return floor
        return floor

    def _due(self, partition: int, read: LogRange) -> Iterator[list[Record]]:
        """Batches of the records that are older than the retention time."""
        until = (self._clock.now() - self._keep).timestamp()
        for batch in read_to_end(self._events, EVENTS.name, {partition: read.first}, limit=self._pace.most):
            due = [record for record in batch if record.offset < read.end and record.time <= until]
            if due:
                yield due
            if len(due) < len(batch) or self._stopping.is_set():
                return

    def _execute(self, plan: TrimPlan) -> tuple[Floor | None, float]:
        """Trim in one transaction; returns the new floor (None: outdated plan, or no lease) and the seconds taken."""
        if plan.floor == plan.before:
            return plan.before, 0.0
        took = [0.0]

        def work(conn: Connection) -> Floor | None:
            began = time.monotonic()
            if not self._catch_up.is_sure or not self._lease.mine(conn):
                return None
            after = trim(conn, plan)
            took[0] = time.monotonic() - began
            return after

        began = time.monotonic()
        try:
            after = self._ledger.writer.run(work)
        except MovedError:
            return None, 0.0
        self._adapt_size(took[0], len(plan.rows))
        return after, time.monotonic() - began

    def _adapt_size(self, took: float, rows: int) -> None:
        """Set the row count of the next transaction, so that it takes the target duration."""
        if rows:
            fitting = int(rows * self._pace.locked / max(took, 1e-6))
            self._size = max(self._pace.least, min(self._pace.most, fitting, 2 * self._size))

    def _pause_if_stuck(self, floor: Floor) -> None:
        """Pause a partition whose next row must not be deleted."""
        if floor.stuck is not None:
            log.warning("trim.stuck", partition=floor.partition, sequence=floor.stuck)
            self._not_before[floor.partition] = self._clock.monotonic() + self._pace.stuck


def _backed_up(conn: Connection, name: str, ends: Mapping[int, int]) -> Mapping[int, int]:
    """Partition → the offset up to which a backup has the log; empty without a backup."""
    backup = retention.backup_of_log(conn, name)
    return {p: min(end, backup.next_offsets.get(p, 0)) for p, end in ends.items()} if backup is not None else {}
