"""What intake put off, looked at again: news held until their case is known, and parked deliveries that a person asked about.

Parked deliveries, taken up again when a person asks: read through the mapping as it is now, in their order.

The command line marks an entry (`hub.ledger.parked.ask`); the program that holds the connectors answers within a second. An
entry that is settled draws along those that only waited behind it, until one fails again; each says itself what became of it.
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
from hub.intake.hub_events import note
from hub.intake.intake import FACT, RAW, WAITS, Intake, Item, ParkedBytes, Refused, unforeseen
from hub.kit.connector import Connector, Delivery, Fact
from hub.ledger import parked
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.runtime.clock import Clock
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time

NOT_AGAIN, GONE = "HUB-E6106", "HUB-E6107"
MOST = 200
Mine = Callable[[Connection], bool]
log = structlog.get_logger(__name__)


class Redelivery:
    """Answers what was asked of parked deliveries. For one thread."""

    def __init__(self, ledger: Ledger, intake: Intake, connectors: Mapping[str, Connector], clock: Clock) -> None:
        self._ledger, self._intake, self._connectors, self._clock = ledger, intake, connectors, clock

    def answer(self, mine: Mine) -> int:
        """Do what is asked for now, the oldest first, unless it is another program's job; how many entries were asked about.

        At most so many at a time that news held back meanwhile do not wait for thousands of them.
        """
        with self._ledger.reading() as conn:
            asked = parked.asked(conn, "delivery", limit=MOST)
        for entry in asked:
            settled = (
                self._discard(entry, mine) if entry.asked == "discard" else self._retry(entry, mine, entry.asked_by)
            )
            while settled is not None:
                settled = self._retry(settled, mine)
        return len(asked)

    def _discard(self, entry: AnyRow, mine: Mine) -> AnyRow | None:
        """Give an entry up; the next that waited behind it."""

        def work(conn: Connection) -> AnyRow | None:
            if not mine(conn) or not parked.settle(conn, entry.ref, "discarded", self._now(), entry.reason):
                return None
            parked.answer(conn, entry.id)
            told = {"parked": entry.ref, "reason": entry.reason, "by": entry.asked_by}
            note(conn, "hub.parked.discarded", entry.ref, told, self._clock.now())
            return _behind(conn, entry)

        return self._ledger.writer.run(work)

    def _retry(self, entry: AnyRow, mine: Mine, by: str | None = None) -> AnyRow | None:
        """Read an entry again and take it in; the next that waited behind it, None when this one failed again."""
        items = read_again(self._intake, self._connectors, entry)

        def work(conn: Connection) -> AnyRow | None:
            current = parked.get(conn, entry.id)
            if not mine(conn) or current is None or current.state != "open":
                return None
            refused = self._intake.take_in(conn, entry.instance, items, before=entry.id)
            for ref in {entry.ref, *(kept.ref for _, kept in items)} - refused:
                parked.settle(conn, ref, "done", self._now())
            parked.answer(conn, entry.id)
            if current.asked:
                note(conn, "hub.parked.retried", entry.ref, {"parked": entry.ref, "by": by}, self._clock.now())
            return None if entry.ref in refused else _behind(conn, entry)

        return self._ledger.writer.run(work)

    def _now(self) -> str:
        return format_time(self._clock.now())


def read_again(intake: Intake, connectors: Mapping[str, Connector], entry: AnyRow) -> Sequence[Item]:
    """What the entry's bytes, or their correction, say by the mapping as it is now. Nothing is kept, and no system is asked.

    A refusal stays parked under the entry's own ref.
    """
    kept = ParkedBytes(entry.ref, entry.body, entry.headers or {}, parse_time(entry.parked_at))
    connector = connectors.get(entry.instance)
    if connector is None:
        return [(Refused(entry.subject, GONE, {"instance": entry.instance}), kept)]
    try:
        return _read(intake, entry, kept, connector)
    except HubError as error:
        return [(Refused.by(entry.subject, error), kept)]
    except Exception as error:
        return [(Refused.by(entry.subject, unforeseen(entry.instance, error)), kept)]


def _read(intake: Intake, entry: AnyRow, kept: ParkedBytes, connector: Connector) -> Sequence[Item]:
    type_ = kept.headers.get("content-type")
    body = kept.body if entry.correction is None else entry.correction
    if type_ == FACT:
        return [(intake.polled(entry.instance, _fact(body))[0], kept)]
    if type_ == RAW and connector.reread is not None:
        return [(intake.polled(entry.instance, one)[0], kept) for one in connector.reread(body)]
    if type_ != RAW and connector.receives is not None:
        delivery = Delivery(kept.headers, kept.body, kept.received)
        return intake.items(entry.instance, connector.receives, delivery, entry.correction)
    return [(Refused(entry.subject, NOT_AGAIN, {"instance": entry.instance}), kept)]


def _behind(conn: Connection, entry: AnyRow) -> AnyRow | None:
    """The next open entry about the same object, if all that it did was wait."""
    if entry.subject is None:
        return None
    table = parked.parked
    same = (table.c.state == "open", table.c.kind == "delivery", table.c.subject == entry.subject)
    found = conn.execute(select(table).where(*same, table.c.id > entry.id).order_by(table.c.id).limit(1)).first()
    return found if found is not None and found.code == WAITS else None


def _fact(body: bytes) -> Fact:
    told = orjson.loads(body)
    return Fact(**{**told, "time": datetime.fromisoformat(told["time"]), "clears": tuple(told.get("clears", ()))})


PAUSE = 0.5
"""Seconds between looks when this program commits nothing; another program may."""
AGAIN = 2.0
"""Seconds until the next try while the ledger is away."""
BREATH = 0.1
"""Seconds between looks under load: what is looked for is rare, and a look takes time from who commits."""

MANY = 5.0
"""A look may take so many times as long as other work: a person may have asked about thousands of entries at once."""


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
            due = correlation.releasable(conn)
        if due:
            self._ledger.writer.run(self._release)
        self._redelivery.answer(self._lease.mine)

    def _release(self, conn: Connection) -> None:
        if self._lease.mine(conn):
            correlation.release(conn)

    def _tell_back(self) -> bool:
        log.info("second_looks.go_on")
        return False
