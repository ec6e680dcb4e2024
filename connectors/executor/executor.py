"""The executor: three loops over the ledger, and the calls that they start."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from connectors.executor.calls import Calls
from connectors.executor.commands_in import CommandsIn
from connectors.executor.dispatcher import Dispatcher
from connectors.executor.lanes import Lanes
from connectors.executor.preparing import People
from connectors.executor.recall import Recall
from connectors.executor.rounds import Rounds
from connectors.owner import new_owner
from hub.clock import Clock
from hub.connector import Connector
from hub.errors import FatalError, HubError, RetryableError
from hub.event_log import EventLog
from hub.hung_threads import at_work
from hub.ledger.ledger import Ledger

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
        self, ledger: Ledger, log: EventLog, connectors: Mapping[str, Connector], people: People, clock: Clock
    ) -> None:
        self.ledger = ledger
        self.owner = new_owner()
        self.failed: BaseException | None = None
        """Why it cannot go on; None while it can."""
        self._stopping = threading.Event()
        self._lanes = Lanes(connectors, people, clock)
        self.recall = Recall(ledger, log, clock, lambda instance: self._lanes.of(instance).limits)
        self._calls = Calls(ledger, clock, self.wake, self._stopping)
        self._dispatcher = Dispatcher(ledger, self._lanes, self._calls, clock, self.owner, self.recall)
        self._rounds = Rounds(ledger, self._lanes, clock)
        self._commands_in = CommandsIn(ledger, log, clock, self.owner, self.wake)
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

    def use(self, *, people: People | None = None, connectors: Mapping[str, Connector] | None = None) -> None:
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
