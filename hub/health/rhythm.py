"""Throughput of the last hour: events received and commands done, by instance and minute. Held in memory."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from hub.ledger.outbox import outbox
from schemas.envelope import parse_time

MINUTES = 60
MAX_ROWS = 5000
"""Maximum number of rows read at once; the first read goes back as far."""
DONE = "hub.command.done"


@dataclass
class Minute:
    """Counts of one minute, by instance."""

    at: datetime
    taken: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)


@dataclass
class Rhythm:
    """Reads the outbox incrementally by its row ids. Call `look` from one thread; the other methods are thread-safe."""

    _read_to: int | None = None
    _minutes: deque[Minute] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self, conn: Connection, now: datetime) -> None:
        """Count the rows that were added since the last call."""
        newest = conn.execute(select(func.max(outbox.c.id))).scalar_one_or_none() or 0
        if self._read_to is None or newest < self._read_to or newest - self._read_to > MAX_ROWS:
            self._read_to = max(0, newest - MAX_ROWS)
        columns = (outbox.c.id, outbox.c.instance, outbox.c.type, outbox.c.subject, outbox.c.recorded_at)
        rows = conn.execute(select(*columns).where(outbox.c.id > self._read_to).order_by(outbox.c.id)).all()
        with self._lock:
            for row in rows:
                self._count(row.instance, row.type, row.subject, parse_time(row.recorded_at), now)
            self._read_to = rows[-1].id if rows else self._read_to
            while self._minutes and now - self._minutes[0].at > timedelta(minutes=MINUTES):
                self._minutes.popleft()

    def _count(self, instance: str, type_: str, subject: str, recorded: datetime, now: datetime) -> None:
        at = recorded.replace(second=0, microsecond=0)
        if now - at > timedelta(minutes=MINUTES):
            return
        minute = next((each for each in reversed(self._minutes) if each.at == at), None)
        if minute is None:
            minute = Minute(at)
            self._minutes = deque(sorted([*self._minutes, minute], key=lambda each: each.at))
        if type_ == DONE and subject.count("/") >= 2:
            minute.done[subject.split("/")[1]] += 1
        elif instance != "hub":
            minute.taken[instance] += 1

    def by_minute(self, now: datetime) -> list[tuple[datetime, int]]:
        """The last hour, minute by minute: the number of events received."""
        with self._lock:
            counts = {each.at: sum(each.taken.values()) for each in self._minutes}
        current = now.replace(second=0, microsecond=0)
        minutes = [current - timedelta(minutes=back) for back in reversed(range(MINUTES))]
        return [(at, counts.get(at, 0)) for at in minutes]

    def taken(self) -> Mapping[str, int]:
        """Instance → events received within the hour."""
        with self._lock:
            return sum((each.taken for each in self._minutes), Counter())

    def done(self) -> Mapping[str, int]:
        """Instance → commands done within the hour."""
        with self._lock:
            return sum((each.done for each in self._minutes), Counter())
