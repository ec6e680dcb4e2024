"""What has to be looked after once a second: calls whose caller is gone, timers that came due, what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from hub.coordination import is_dead
from hub.executor import command_events
from hub.executor.instances import Instances
from hub.kit.connector import Idempotency
from hub.ledger import commands, leases, outbox, timers
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.runtime import metrics
from hub.runtime.clock import Clock
from hub.runtime.watchdog import beat
from schemas.envelope import HUB, format_time, parse_time

log = structlog.get_logger(__name__)


@dataclass
class Housekeeper:
    """Every copy of the program makes them; what one has done, the next finds done."""

    ledger: Ledger
    lanes: Instances
    clock: Clock

    def make(self) -> None:
        """One round. Raises RetryableError while the ledger is away."""
        self.recover()
        while self._fire_timers():
            beat()
        self._count()

    def recover(self) -> int:
        """Turn calls that nobody answers for any more into doubtful commands; how many."""
        with self.ledger.reading() as conn:
            sending = commands.sending(conn)
            there = format_time(datetime.fromtimestamp(leases.database_time(conn), UTC))
        dead = [row for row in sending if row.owner and is_dead(row.owner)]
        late = any(row.deadline < there for row in sending)
        if not dead and not late:
            return 0
        return self.ledger.writer.run(lambda conn: self._doubt(conn, dead, there))

    def _doubt(self, conn: Connection, dead: Sequence[AnyRow], there: str) -> int:
        at = format_time(self.clock.now())
        found = [commands.end(conn, row.id, row.owner, "UNKNOWN", at, due_at=self._settled(row)) for row in dead]
        lost = sum(found) + commands.abandoned(conn, there)
        log.info("calls.abandoned", commands=lost)
        return lost

    def _settled(self, row: AnyRow) -> str:
        """When the system has surely done what it will do of a request: its time-out may not be over yet."""
        lane = self.lanes.of(row.instance)
        repeatable = (
            lane.sends is None or row.type not in lane.sends.takes or lane.sends.once(row.type) is not Idempotency.MARK
        )
        if repeatable:
            return format_time(parse_time(row.updated_at) + timedelta(seconds=lane.limits.settle))
        # It may have waited for its turn long after it was told to begin: what is sure is that it began before now.
        return format_time(self.clock.now() + timedelta(seconds=lane.limits.settle + lane.limits.timeout))

    def _fire_timers(self) -> int:
        now = self.clock.now()
        with self.ledger.reading() as conn:
            due = timers.due(conn, format_time(now))
        return self.ledger.writer.run(lambda conn: _fire(conn, due, now)) if due else 0

    def _count(self) -> None:
        with self.ledger.reading() as conn:
            counted = commands.counts(conn)
        for (instance, state), number in counted.items():
            metrics.COMMANDS.labels(instance, state).set(number)
        # A state that emptied is no longer counted: say 0, or its last number would stand for ever.
        for lane in self.lanes.all():
            for state in ("NEW", "SENDING", "RETRY", "UNKNOWN", "PARKED"):
                if (lane.name, state) not in counted:
                    metrics.COMMANDS.labels(lane.name, state).set(0)


def _fire(conn: Connection, due: Sequence[AnyRow], now: datetime) -> int:
    told = [command_events.fired(row.id, row.case_id, row.name, row.due_at, now) for row in due]
    outbox.record(conn, told, HUB)
    for row in due:
        timers.drop(conn, row.id)
    return len(due)
