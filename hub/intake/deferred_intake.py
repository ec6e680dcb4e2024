"""Deferred intake: releases held events once their case is known, and retries or discards parked deliveries on request.

The command line marks an entry (`hub.ledger.parked.request`); the process that runs the connectors carries it out within a second.
A retry reads the bytes with the present mapping. After an entry is settled, those that only waited behind it are retried in order
until one fails again; each entry records its own result.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import orjson
import structlog
from sqlalchemy import Connection, select

from hub.coordination import Lease
from hub.errors import HubError, RetryableError
from hub.intake import correlation
from hub.intake.hub_events import record_hub_event
from hub.intake.intake import (
    BEHIND_PARKED,
    FACT_CONTENT_TYPE,
    RAW_CONTENT_TYPE,
    Intake,
    Item,
    ParkedBytes,
    ParkReason,
    unexpected_error,
)
from hub.kit.connector import Connector, Delivery, Fact
from hub.ledger import parked
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.runtime.clock import Clock
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time

NOT_REREADABLE, UNKNOWN_INSTANCE = "HUB-E6106", "HUB-E6107"
MAX_BATCH = 200
OwnsLease = Callable[[Connection], bool]
log = structlog.get_logger(__name__)


class Redelivery:
    """Carries out requests on parked deliveries. For one thread."""

    def __init__(self, ledger: Ledger, intake: Intake, connectors: Mapping[str, Connector], clock: Clock) -> None:
        self._ledger, self._intake, self._connectors, self._clock = ledger, intake, connectors, clock

    def answer(self, mine: OwnsLease) -> int:
        """Carry out pending requests, oldest first, unless another process holds the lease; returns how many there were.

        At most `MAX_BATCH` at a time, so that held events do not wait for thousands of retries.
        """
        with self._ledger.reading() as conn:
            requests = parked.pending_requests(conn, "delivery", limit=MAX_BATCH)
        for entry in requests:
            settled = (
                self._discard(entry, mine) if entry.asked == "discard" else self._retry(entry, mine, entry.asked_by)
            )
            while settled is not None:
                settled = self._retry(settled, mine)
        return len(requests)

    def _discard(self, entry: AnyRow, mine: OwnsLease) -> AnyRow | None:
        """Discard an entry; returns the next that waited behind it."""

        def work(conn: Connection) -> AnyRow | None:
            if not mine(conn) or not parked.settle(conn, entry.ref, "discarded", self._now(), entry.reason):
                return None
            parked.clear_request(conn, entry.id)
            data = {"parked": entry.ref, "reason": entry.reason, "by": entry.asked_by}
            record_hub_event(conn, "hub.parked.discarded", entry.ref, data, self._clock.now())
            return _behind(conn, entry)

        return self._ledger.writer.run(work)

    def _retry(self, entry: AnyRow, mine: OwnsLease, by: str | None = None) -> AnyRow | None:
        """Read an entry again and record it; returns the next that waited behind it, None when this one failed again."""
        items = reread(self._intake, self._connectors, entry)

        def work(conn: Connection) -> AnyRow | None:
            current = parked.get(conn, entry.id)
            if not mine(conn) or current is None or current.state != "open":
                return None
            still_parked = self._intake.take_in(conn, entry.instance, items, before=entry.id)
            for ref in {entry.ref, *(source.ref for _, source in items)} - still_parked:
                parked.settle(conn, ref, "done", self._now())
            parked.clear_request(conn, entry.id)
            if current.asked:
                record_hub_event(
                    conn, "hub.parked.retried", entry.ref, {"parked": entry.ref, "by": by}, self._clock.now()
                )
            return None if entry.ref in still_parked else _behind(conn, entry)

        return self._ledger.writer.run(work)

    def _now(self) -> str:
        return format_time(self._clock.now())


def reread(intake: Intake, connectors: Mapping[str, Connector], entry: AnyRow) -> Sequence[Item]:
    """The items of the entry's bytes, or of their correction, by the present mapping. Writes nothing and calls no outside system.

    An item that fails again stays parked under the entry's own ref.
    """
    source = ParkedBytes(entry.ref, entry.body, entry.headers or {}, parse_time(entry.parked_at))
    connector = connectors.get(entry.instance)
    if connector is None:
        return [(ParkReason(entry.subject, UNKNOWN_INSTANCE, {"instance": entry.instance}), source)]
    try:
        return _read(intake, entry, source, connector)
    except HubError as error:
        return [(ParkReason.by(entry.subject, error), source)]
    except Exception as error:
        return [(ParkReason.by(entry.subject, unexpected_error(entry.instance, error)), source)]


def _read(intake: Intake, entry: AnyRow, source: ParkedBytes, connector: Connector) -> Sequence[Item]:
    type_ = source.headers.get("content-type")
    body = source.body if entry.correction is None else entry.correction
    if type_ == FACT_CONTENT_TYPE:
        return [(intake.polled(entry.instance, _fact(body))[0], source)]
    if type_ == RAW_CONTENT_TYPE and connector.reread is not None:
        return [(intake.polled(entry.instance, fact)[0], source) for fact in connector.reread(body)]
    if type_ != RAW_CONTENT_TYPE and connector.receives is not None:
        delivery = Delivery(source.headers, source.body, source.received)
        return intake.items(entry.instance, connector.receives, delivery, entry.correction)
    return [(ParkReason(entry.subject, NOT_REREADABLE, {"instance": entry.instance}), source)]


def _behind(conn: Connection, entry: AnyRow) -> AnyRow | None:
    """The next open entry about the same object, if it only waits behind others."""
    if entry.subject is None:
        return None
    table = parked.parked
    same = (table.c.state == "open", table.c.kind == "delivery", table.c.subject == entry.subject)
    found = conn.execute(select(table).where(*same, table.c.id > entry.id).order_by(table.c.id).limit(1)).first()
    return found if found is not None and found.code == BEHIND_PARKED else None


def _fact(body: bytes) -> Fact:
    fields = orjson.loads(body)
    time, clears = datetime.fromisoformat(fields["time"]), tuple(fields.get("clears", ()))
    return Fact(**{**fields, "time": time, "clears": clears})


POLL_INTERVAL_S = 0.5
"""Seconds between polls for commits of other processes; a commit of this one wakes the thread at once."""
RETRY_DELAY_S = 2.0
"""Seconds until the next try while the ledger is unavailable."""
BATCH_PAUSE_S = 0.1
"""Seconds between polls under load: deferred work is rare, and a poll slows down commits."""

STALL_FACTOR = 5.0
"""A poll may take this many times as long as other work before the watchdog acts, since a person may request thousands at once."""


class DeferredIntake:
    """A thread's loop, woken by commits and by time. `run` ends after `stop`."""

    def __init__(self, ledger: Ledger, redelivery: Redelivery, clock: Clock, lease: Lease | None = None) -> None:
        self._ledger, self._redelivery = ledger, redelivery
        self._lease = lease or Lease("second-looks", clock)
        self._awake, self._stopping = threading.Event(), threading.Event()

    def run(self) -> None:
        """Poll until stopped."""
        self._ledger.writer.on_commit(self._awake.set)
        away = False
        while not self._stopping.is_set():
            self._awake.wait(POLL_INTERVAL_S)
            self._awake.clear()
            try:
                with at_work("second-looks", STALL_FACTOR):
                    self.look()
                away = away and self._log_recovery()
                self._stopping.wait(BATCH_PAUSE_S)
            except RetryableError as error:
                if not away:
                    log.warning("second_looks.wait", **error.fields())
                away = True
                self._stopping.wait(RETRY_DELAY_S)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present poll."""
        self._stopping.set()
        self._awake.set()

    def look(self) -> None:
        """Poll once. Writes nothing unless there is something to do."""
        with self._ledger.reading() as conn:
            due = correlation.releasable(conn)
        if due:
            self._ledger.writer.run(self._release)
        self._redelivery.answer(self._lease.mine)

    def _release(self, conn: Connection) -> None:
        if self._lease.mine(conn):
            correlation.release(conn)

    def _log_recovery(self) -> bool:
        log.info("second_looks.go_on")
        return False
