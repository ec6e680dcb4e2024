"""The executor: three loops over the ledger, and the calls that they start.

Starts each command when its turn comes: one look at the ledger and one commit for all that may start together.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Connection

from hub.coordination import new_owner
from hub.errors import FatalError, HubError, RejectedError, RetryableError
from hub.executor import calls as results
from hub.executor.argument_resolution import AccountLookup, Prepared
from hub.executor.calls import Calls
from hub.executor.command_consumer import CommandConsumer
from hub.executor.housekeeper import Housekeeper
from hub.executor.instances import Instances, InstanceState
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.executor.retry_policy import CommandAttempt
from hub.executor.selection import Ready, choose
from hub.kit.connector import CommandSink, Connector, RateLimits
from hub.ledger import commands, leases
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time

LOOK = 1.0
"""Seconds after which the ledger is looked at anyway: another program may have accepted or reopened a command."""
TIMEOUTS = 2
"""A request may take its time-out twice: once until it is written, once until it is answered."""
MARGIN = 15.0
"""Seconds beyond a call's time-outs until it counts as abandoned."""

Started = tuple[InstanceState, CommandAttempt, CommandSink]


@dataclass
class Dispatcher:
    """Looks, takes, starts. `turn` is called by one thread."""

    ledger: Ledger
    lanes: Instances
    calls: Calls
    clock: Clock
    owner: str
    recall: LedgerCatchUp
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
            due = commands.next_due(conn, format_time(now))
        if ready:
            self._start(ready, now)
        return min(look, (parse_time(due) - self.clock.now()).total_seconds() if due else LOOK)

    def _choose(self, conn: Connection, lane: InstanceState, now: datetime) -> tuple[list[Ready], float]:
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
        failpoint("executor.sending")

    def _take(self, conn: Connection, ready: Sequence[Ready], now: datetime) -> list[Started]:
        """Make them SENDING. Deadlines are by the database's clock, on which all copies of the program agree."""
        if not self.recall.is_sure:
            return []
        there = datetime.fromtimestamp(leases.database_time(conn), UTC)
        seen = [(one.row, format_time(there + _longest(one.lane.limits))) for one in ready]
        ours = commands.take(conn, seen, self.owner, format_time(now))
        begun = [started for one in ready if one.row.id in ours for started in self._begun(conn, one, now)]
        failpoint("executor.before-sending")
        return begun

    def _begun(self, conn: Connection, one: Ready, now: datetime) -> list[Started]:
        attempts = one.row.attempts + 1
        if isinstance(one.work, Prepared) and one.sends is not None:
            call = CommandAttempt(
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


def _longest(limits: RateLimits) -> timedelta:
    """A look and a request, each with its time-outs, and a margin before and after the request begins."""
    return timedelta(seconds=2 * (TIMEOUTS * limits.timeout + MARGIN))


log = structlog.get_logger(__name__)
ROUND = 1.0
BREATH = 0.008
"""Seconds between two looks at the ledger: a look costs much the same for one command as for ten."""
AWAY = 1.0
"""Seconds to wait before log or ledger, being away, are tried again."""
IN_A_ROW = 20
"""Failures that nobody foresaw, one after the other, that end the program rather than go on for ever."""
GRACE = 15.0
"""Seconds that calls get to end when the program stops."""


class Executor:
    """Carries out what the log asks for. Any number of them may share a ledger, in one program or in many."""

    def __init__(
        self, ledger: Ledger, log: EventLog, connectors: Mapping[str, Connector], people: AccountLookup, clock: Clock
    ) -> None:
        self.ledger = ledger
        self.owner = new_owner()
        self.failed: BaseException | None = None
        """Why it cannot go on; None while it can."""
        self._stopping = threading.Event()
        self._lanes = Instances(connectors, people, clock)
        self.recall = LedgerCatchUp(ledger, log, clock, lambda instance: self._lanes.of(instance).limits)
        self._calls = Calls(ledger, clock, self.wake, self._stopping)
        self._dispatcher = Dispatcher(ledger, self._lanes, self._calls, clock, self.owner, self.recall)
        self._rounds = Housekeeper(ledger, self._lanes, clock)
        self._commands_in = CommandConsumer(ledger, log, clock, self.owner, self.wake)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin. What a dead predecessor left behind is looked into by the first round; nothing has to be there yet."""
        for name, turn in (
            ("commands-in", self._take_in),
            ("dispatcher", self._dispatch),
            ("rounds", self._make_rounds),
        ):
            thread = threading.Thread(target=self._loop, args=(name, turn), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Start no more calls, give those under way a moment, then leave: what has not ended is looked into later."""
        self._stopping.set()
        self.recall.leave()
        self.wake()
        for thread in self._threads:
            thread.join(GRACE)
        until = time.monotonic() + GRACE
        while any(lane.running for lane in self._lanes.all()) and time.monotonic() < until:
            self._dispatcher.woken.wait(0.1)
            self._dispatcher.woken.clear()
        for lane in self._lanes.all():
            lane.crew.leave()
        try:
            self._commands_in.let_go()
        except HubError as error:
            log.warning("commands.lease_left", code=error.code)

    def healthy(self) -> bool:
        """Whether it does its work; while a system, the log or the ledger is away, waiting is its work."""
        return self.failed is None and bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def use(self, *, people: AccountLookup | None = None, connectors: Mapping[str, Connector] | None = None) -> None:
        """Go on with other people or other connectors; calls under way end by the old ones."""
        if people is not None:
            self._lanes.people = people
        if connectors is not None:
            self._lanes.use(connectors)
        self.wake()

    def wake(self) -> None:
        """Have the ledger looked at now."""
        self._dispatcher.woken.set()

    def _take_in(self) -> None:
        self.recall.make_sure()
        if not self._commands_in.turn():
            self._stopping.wait(AWAY)

    def _dispatch(self) -> None:
        self._dispatcher.woken.clear()
        wait = self._dispatcher.turn()
        self._stopping.wait(BREATH)
        self._dispatcher.woken.wait(wait - BREATH)

    def _make_rounds(self) -> None:
        self.recall.make_sure()
        self._rounds.make()
        self._stopping.wait(ROUND)

    def _loop(self, name: str, turn: Callable[[], None]) -> None:
        """Take turns until the program stops. An outage is told once at its start and once at its end."""
        failures, away = 0, False
        while not self._stopping.is_set():
            try:
                with at_work(name):
                    turn()
                if away:
                    log.info("executor.goes_on", loop=name)
                failures, away = 0, False
            except RetryableError as error:
                if not away:
                    log.warning("executor.waits", loop=name, **error.fields())
                away = True
                self._stopping.wait(error.retry_after or AWAY)
            except FatalError as error:
                log.error("executor.cannot_go_on", loop=name, **error.fields())
                self.failed = error
                return
            except Exception as error:
                failures += 1
                log.exception("executor.unforeseen", loop=name, times=failures)
                if failures >= IN_A_ROW:
                    self.failed = error
                    return
                self._stopping.wait(AWAY)
