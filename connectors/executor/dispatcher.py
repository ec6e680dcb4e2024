"""Starts each command when its turn comes: one look at the ledger and one commit for all that may start together."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from connectors.executor import results
from connectors.executor.calls import Calls
from connectors.executor.choosing import Ready, choose
from connectors.executor.lane import Lane
from connectors.executor.lanes import Lanes
from connectors.executor.preparing import Prepared
from connectors.executor.recall import Recall
from connectors.executor.verdicts import Call
from hub.clock import Clock
from hub.connector import Limits, Sends
from hub.errors import HubError, RejectedError
from hub.failpoints import reach
from hub.ledger import commands, leases
from hub.ledger.ledger import Ledger
from schemas.event import moment, stamp

LOOK = 1.0
"""Seconds after which the ledger is looked at anyway: another program may have accepted or reopened a command."""
TIMEOUTS = 2
"""A request may take its time-out twice: once until it is written, once until it is answered."""
MARGIN = 15.0
"""Seconds beyond a call's time-outs until it counts as abandoned."""

Started = tuple[Lane, Call, Sends]


@dataclass
class Dispatcher:
    """Looks, takes, starts. `turn` is called by one thread."""

    ledger: Ledger
    lanes: Lanes
    calls: Calls
    clock: Clock
    owner: str
    recall: Recall
    woken: threading.Event = field(default_factory=threading.Event)

    def turn(self) -> float:
        """Start every call that may begin now; the seconds after which to look again, if nothing wakes us before.

        Raises RetryableError while the ledger is away.
        """
        self.recall.make_sure()
        now, look = self.clock.now(), LOOK
        ready: list[Ready] = []
        with self.ledger.reading() as conn:
            for name in commands.instances(conn):
                found, wait = self._choose(conn, self.lanes.of(name), now)
                ready += found
                look = min(look, wait)
            due = commands.next_due(conn, stamp(now))
        if ready:
            self._start(ready, now)
        return min(look, (moment(due) - self.clock.now()).total_seconds() if due else LOOK)

    def _choose(self, conn: Connection, lane: Lane, now: datetime) -> tuple[list[Ready], float]:
        """The calls of one instance that its gate and its pace let through, and when they will let more."""
        room = lane.room()
        if room == 0:
            opens = lane.opens_at() - self.clock.monotonic()
            return [], opens if opens > 0 else LOOK  # one that ends makes room, and wakes us
        found: list[Ready] = []
        for ready in choose(conn, self.lanes, lane, now, room):
            wait = lane.pace.take(self.clock.monotonic())
            if wait:
                return found, wait
            found.append(ready)
        return found, LOOK

    def _start(self, ready: Sequence[Ready], now: datetime) -> None:
        for lane, call, sends in self.ledger.writer.run(lambda conn: self._take(conn, ready, now)):
            lane.begin(call.id)
            lane.crew.do(functools.partial(self.calls.carry_out, lane, call, sends), lane.hands)
        reach("executor.sending")

    def _take(self, conn: Connection, ready: Sequence[Ready], now: datetime) -> list[Started]:
        """Make them SENDING. Deadlines are by the database's clock, on which all copies of the program agree."""
        if not self.recall.is_sure:
            return []
        there = datetime.fromtimestamp(leases.database_time(conn), UTC)
        seen = [(one.row, stamp(there + _longest(one.lane.limits))) for one in ready]
        ours = commands.take(conn, seen, self.owner, stamp(now))
        begun = [started for one in ready if one.row.id in ours for started in self._begun(conn, one, now)]
        reach("executor.before-sending")
        return begun

    def _begun(self, conn: Connection, one: Ready, now: datetime) -> list[Started]:
        attempts = one.row.attempts + 1
        if isinstance(one.work, Prepared) and one.sends is not None:
            call = Call(
                prepared=one.work,
                raw=one.row.body,
                owner=self.owner,
                attempts=attempts,
                doubtful=one.row.state == "UNKNOWN",
                once=one.sends.once(one.command.type),
                limits=one.lane.limits,
                give_up_at=self.clock.monotonic() + TIMEOUTS * one.lane.limits.timeout + MARGIN,
            )
            return [(one.lane, call, one.sends)]
        error = one.work if isinstance(one.work, HubError) else self._timer(conn, one, now)
        if error is not None:
            results.park(conn, one.command, one.row.body, self.owner, attempts, error, now)
        return []

    def _timer(self, conn: Connection, one: Ready, now: datetime) -> RejectedError | None:
        try:
            results.set_timer(conn, one.command, self.owner, now)
        except (ValueError, TypeError):
            return RejectedError("HUB-E4067", got=str(one.command.arguments.get("at")))
        return None


def _longest(limits: Limits) -> timedelta:
    """A look and a request, each with its time-outs, and a margin before and after the request begins."""
    return timedelta(seconds=2 * (TIMEOUTS * limits.timeout + MARGIN))
