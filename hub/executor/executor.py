"""The executor: three loops over the ledger (consume commands, dispatch calls, housekeeping) and the calls that they start.

The dispatcher starts a command once it is due: one read of the ledger and one commit for all calls that start together.
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
from hub.executor.argument_resolution import AccountLookup, ResolvedCommand
from hub.executor.calls import Calls
from hub.executor.command_consumer import CommandConsumer
from hub.executor.housekeeper import Housekeeper
from hub.executor.instances import Instances, InstanceState
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.executor.retry_policy import CommandAttempt
from hub.executor.selection import ReadyCommand, select_ready
from hub.kit.connector import CommandSink, Connector, RateLimits
from hub.ledger import commands, leases
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time

POLL_INTERVAL_S = 1.0
"""Seconds between two reads of the ledger while nothing wakes us: another program may have accepted or reopened a command."""
TIMEOUTS_PER_CALL = 2
"""A request may take its time-out twice: once until it is written, once until the response arrives."""
DEADLINE_MARGIN_S = 15.0
"""Seconds beyond a call's time-outs after which it counts as abandoned."""

StartedCall = tuple[InstanceState, CommandAttempt, CommandSink]


@dataclass
class Dispatcher:
    """Selects the commands that are due, marks them SENDING in one commit and starts their calls. One thread calls `turn`."""

    ledger: Ledger
    instances: Instances
    calls: Calls
    clock: Clock
    owner: str
    catch_up: LedgerCatchUp
    woken: threading.Event = field(default_factory=threading.Event)

    def turn(self) -> float:
        """Start every call that may begin now; return the seconds until the next turn is due, unless something wakes us before.

        Raises RetryableError while the ledger is away.
        """
        self.catch_up.make_sure()
        now, wait = self.clock.now(), POLL_INTERVAL_S
        ready: list[ReadyCommand] = []
        with self.ledger.reading() as conn:
            for name in commands.instances(conn):
                selected, opens_in = self._select(conn, self.instances.of(name), now)
                ready += selected
                wait = min(wait, opens_in)
            due = commands.next_due(conn, format_time(now))
        if ready:
            self._start(ready, now)
        return min(wait, (parse_time(due) - self.clock.now()).total_seconds() if due else POLL_INTERVAL_S)

    def _select(self, conn: Connection, instance: InstanceState, now: datetime) -> tuple[list[ReadyCommand], float]:
        """Return the calls that an instance's breaker and rate limiter let through, and the seconds until they allow more."""
        capacity = instance.capacity()
        if capacity == 0:
            opens_in = instance.opens_at() - self.clock.monotonic()
            return [], opens_in if opens_in > 0 else POLL_INTERVAL_S  # a call that ends frees capacity and wakes us
        selected: list[ReadyCommand] = []
        for ready in select_ready(conn, self.instances, instance, now, capacity):
            wait = instance.rate_limiter.take(self.clock.monotonic())
            if wait:
                return selected, wait
            selected.append(ready)
        return selected, POLL_INTERVAL_S

    def _start(self, ready: Sequence[ReadyCommand], now: datetime) -> None:
        for instance, call, sink in self.ledger.writer.run(lambda conn: self._take(conn, ready, now)):
            instance.begin(call.id)
            instance.workers.do(functools.partial(self.calls.carry_out, instance, call, sink), instance.max_threads)
        failpoint("executor.sending")

    def _take(self, conn: Connection, selected: Sequence[ReadyCommand], now: datetime) -> list[StartedCall]:
        """Mark them SENDING. Deadlines use the database's clock, on which all copies of the program agree."""
        if not self.catch_up.is_sure:
            return []
        database_now = datetime.fromtimestamp(leases.database_time(conn), UTC)
        deadlines = [
            (ready.row, format_time(database_now + _longest_call(ready.instance.limits))) for ready in selected
        ]
        ours = commands.take(conn, deadlines, self.owner, format_time(now))
        started = [call for ready in selected if ready.row.id in ours for call in self._begin(conn, ready, now)]
        failpoint("executor.before-sending")
        return started

    def _begin(self, conn: Connection, ready: ReadyCommand, now: datetime) -> list[StartedCall]:
        """Return the call to make, or none for a command that ends here: a timer is set, one that cannot be sent is parked."""
        attempts = ready.row.attempts + 1
        if isinstance(ready.resolution, ResolvedCommand) and ready.sink is not None:
            call = CommandAttempt(
                resolved=ready.resolution,
                raw=ready.row.body,
                owner=self.owner,
                attempts=attempts,
                doubtful=ready.row.state == "UNKNOWN",
                idempotency=ready.sink.idempotency(ready.command.type),
                limits=ready.instance.limits,
                give_up_at=self.clock.monotonic()
                + TIMEOUTS_PER_CALL * ready.instance.limits.timeout
                + DEADLINE_MARGIN_S,
            )
            return [(ready.instance, call, ready.sink)]
        error = ready.resolution if isinstance(ready.resolution, HubError) else self._set_timer(conn, ready, now)
        if error is not None:
            results.park(conn, ready.command, ready.row.body, self.owner, attempts, error, now)
        return []

    def _set_timer(self, conn: Connection, ready: ReadyCommand, now: datetime) -> RejectedError | None:
        try:
            results.set_timer(conn, ready.command, self.owner, now)
        except (ValueError, TypeError):
            return RejectedError("HUB-E4067", got=str(ready.command.arguments.get("at")))
        return None


def _longest_call(limits: RateLimits) -> timedelta:
    """A lookup and a request, each with its time-outs, and a margin before and after the request begins."""
    return timedelta(seconds=2 * (TIMEOUTS_PER_CALL * limits.timeout + DEADLINE_MARGIN_S))


log = structlog.get_logger(__name__)
HOUSEKEEPING_INTERVAL_S = 1.0
BATCH_PAUSE_S = 0.008
"""Seconds between two reads of the ledger: one read costs much the same for one command as for ten."""
OUTAGE_RETRY_S = 1.0
"""Seconds until the log or the ledger is tried again after an outage."""
MAX_UNEXPECTED_FAILURES = 20
"""Unexpected failures in a row after which the program ends instead of retrying for ever."""
SHUTDOWN_GRACE_S = 15.0
"""Seconds that calls under way get to end when the program stops."""


class Executor:
    """Carries out the commands in the log. Any number of executors may share a ledger, in one program or in many."""

    def __init__(
        self, ledger: Ledger, log: EventLog, connectors: Mapping[str, Connector], people: AccountLookup, clock: Clock
    ) -> None:
        self.ledger = ledger
        self.owner = new_owner()
        self.failed: BaseException | None = None
        """Why it cannot go on; None while it can."""
        self._stopping = threading.Event()
        self._instances = Instances(connectors, people, clock)
        self.catch_up = LedgerCatchUp(ledger, log, clock, lambda instance: self._instances.of(instance).limits)
        self._calls = Calls(ledger, clock, self.wake, self._stopping)
        self._dispatcher = Dispatcher(ledger, self._instances, self._calls, clock, self.owner, self.catch_up)
        self._housekeeper = Housekeeper(ledger, self._instances, clock)
        self._consumer = CommandConsumer(ledger, log, clock, self.owner, self.wake)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the loops. The first housekeeping run recovers what a dead predecessor left; log and ledger may still be away."""
        for name, turn in (
            ("commands-in", self._consume),
            ("dispatcher", self._dispatch),
            ("rounds", self._keep_house),
        ):
            thread = threading.Thread(target=self._loop, args=(name, turn), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Start no more calls, wait `SHUTDOWN_GRACE_S` for those under way, then end: calls still open are recovered later."""
        self._stopping.set()
        self.catch_up.leave()
        self.wake()
        for thread in self._threads:
            thread.join(SHUTDOWN_GRACE_S)
        until = time.monotonic() + SHUTDOWN_GRACE_S
        while any(instance.running for instance in self._instances.all()) and time.monotonic() < until:
            self._dispatcher.woken.wait(0.1)
            self._dispatcher.woken.clear()
        for instance in self._instances.all():
            instance.workers.leave()
        try:
            self._consumer.release()
        except HubError as error:
            log.warning("commands.lease_left", code=error.code)

    def healthy(self) -> bool:
        """Whether every loop runs; waiting for a system, the log or the ledger to come back counts as running."""
        return self.failed is None and bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def use(self, *, people: AccountLookup | None = None, connectors: Mapping[str, Connector] | None = None) -> None:
        """Use another people directory or other connectors from now on; calls under way end with the old ones."""
        if people is not None:
            self._instances.people = people
        if connectors is not None:
            self._instances.use(connectors)
        self.wake()

    def wake(self) -> None:
        """Run the dispatcher's next turn now."""
        self._dispatcher.woken.set()

    def _consume(self) -> None:
        self.catch_up.make_sure()
        if not self._consumer.turn():
            self._stopping.wait(OUTAGE_RETRY_S)

    def _dispatch(self) -> None:
        self._dispatcher.woken.clear()
        wait = self._dispatcher.turn()
        self._stopping.wait(BATCH_PAUSE_S)
        self._dispatcher.woken.wait(wait - BATCH_PAUSE_S)

    def _keep_house(self) -> None:
        self.catch_up.make_sure()
        self._housekeeper.run_once()
        self._stopping.wait(HOUSEKEEPING_INTERVAL_S)

    def _loop(self, name: str, turn: Callable[[], None]) -> None:
        """Run turns until the program stops. An outage is logged once at its start and once at its end."""
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
                self._stopping.wait(error.retry_after or OUTAGE_RETRY_S)
            except FatalError as error:
                log.error("executor.cannot_go_on", loop=name, **error.fields())
                self.failed = error
                return
            except Exception as error:
                failures += 1
                log.exception("executor.unforeseen", loop=name, times=failures)
                if failures >= MAX_UNEXPECTED_FAILURES:
                    self.failed = error
                    return
                self._stopping.wait(OUTAGE_RETRY_S)
