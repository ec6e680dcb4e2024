"""Housekeeping once a second: recovers abandoned calls, fires timers that are due, updates the gauges of commands."""

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
from schemas.envelope import HUB_INSTANCE, format_time, parse_time

log = structlog.get_logger(__name__)


@dataclass
class Housekeeper:
    """Every copy of the program runs it; work that one has done is not done again by the next."""

    ledger: Ledger
    instances: Instances
    clock: Clock

    def run_once(self) -> None:
        """Do all of it once. Raises RetryableError while the ledger is away."""
        self.recover()
        while self._fire_timers():
            beat()
        self._count()

    def recover(self) -> int:
        """Move the commands of abandoned calls to UNKNOWN; return how many."""
        with self.ledger.reading() as conn:
            sending = commands.sending(conn)
            database_now = format_time(datetime.fromtimestamp(leases.database_time(conn), UTC))
        dead = [row for row in sending if row.owner and is_dead(row.owner)]
        late = any(row.deadline < database_now for row in sending)
        if not dead and not late:
            return 0
        return self.ledger.writer.run(lambda conn: self._doubt(conn, dead, database_now))

    def _doubt(self, conn: Connection, dead: Sequence[AnyRow], database_now: str) -> int:
        at = format_time(self.clock.now())
        ended = [commands.end(conn, row.id, row.owner, "UNKNOWN", at, due_at=self._lookup_time(row)) for row in dead]
        lost = sum(ended) + commands.expire_calls(conn, database_now)
        log.info("calls.abandoned", commands=lost)
        return lost

    def _lookup_time(self, row: AnyRow) -> str:
        """When a lookup is safe: by then the system has surely done what it will do of a request whose time-out may still run."""
        instance = self.instances.of(row.instance)
        repeatable = (
            instance.sends is None
            or row.type not in instance.sends.command_types
            or instance.sends.idempotency(row.type) is not Idempotency.LOOKUP
        )
        if repeatable:
            return format_time(parse_time(row.updated_at) + timedelta(seconds=instance.limits.settle))
        # The call may have waited for a thread long after it was marked SENDING: all we know is that it began before now.
        return format_time(self.clock.now() + timedelta(seconds=instance.limits.settle + instance.limits.timeout))

    def _fire_timers(self) -> int:
        now = self.clock.now()
        with self.ledger.reading() as conn:
            due = timers.due(conn, format_time(now))
        return self.ledger.writer.run(lambda conn: _fire(conn, due, now)) if due else 0

    def _count(self) -> None:
        with self.ledger.reading() as conn:
            counted = commands.counts(conn)
        for (name, state), number in counted.items():
            metrics.COMMANDS.labels(name, state).set(number)
        # The query returns no row for a state that has emptied: set 0, or the gauge would keep its last number.
        for instance in self.instances.all():
            for state in ("NEW", "SENDING", "RETRY", "UNKNOWN", "PARKED"):
                if (instance.name, state) not in counted:
                    metrics.COMMANDS.labels(instance.name, state).set(0)


def _fire(conn: Connection, due: Sequence[AnyRow], now: datetime) -> int:
    events = [command_events.fired(row.id, row.case_id, row.name, row.due_at, now) for row in due]
    outbox.record(conn, events, HUB_INSTANCE)
    for row in due:
        timers.drop(conn, row.id)
    return len(due)
