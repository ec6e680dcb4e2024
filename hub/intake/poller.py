"""Asks one system what is new: a page, its facts and its cursor in one transaction, then the next."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from random import SystemRandom

import structlog
from sqlalchemy import Connection

from hub.coordination import Lease
from hub.errors import FatalError, HubError, RetryableError
from hub.intake import hub_events
from hub.intake.intake import Intake
from hub.kit.connector import Page, PollingSource
from hub.ledger import cursors
from hub.ledger.ledger import Ledger
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from hub.runtime.watchdog import at_work

PAUSED = 300.0
"""Seconds until credentials that were refused are tried again."""
FIRST, LONGEST = 1.0, 60.0
"""Seconds until the next try in an outage: the first, and the longest."""
ELSEWHERE = 5.0
"""Seconds until a stream that another program reads is asked for again."""
LEASE = 60.0
"""Seconds that a stream stays a program's own: longer than a page takes."""
PAGE = 5.0
"""A page may take so many times as long as other work: it may be many requests, each of which may wait for its time-out."""
SPREAD = SystemRandom()

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Stream:
    """What is polled: an instance's connector, and one of its streams."""

    instance: str
    name: str
    polls: PollingSource


class Poller:
    """Reads one stream. `run` is for one thread, since a poll may block; an outage is told once at its start and its end."""

    def __init__(
        self, stream: Stream, ledger: Ledger, intake: Intake, clock: Clock, lease: Lease | None = None
    ) -> None:
        self.stream = stream
        self._ledger, self._intake, self._clock = ledger, intake, clock
        self._lease = lease or Lease(f"poll/{stream.instance}/{stream.name}", clock, LEASE)
        self._stopping = threading.Event()
        self._failures = 0
        self.state = "ok"
        """ok, away, paused (credentials are refused) or elsewhere (another program reads the stream)."""

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stopping.is_set():
            with at_work(f"poll-{self.stream.instance}-{self.stream.name}", PAGE):
                wait = self.turn()
            self._stopping.wait(wait)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present page."""
        self._stopping.set()

    def turn(self) -> float:
        """Read one page; in how many seconds to read the next. Raises nothing that an outside system can cause."""
        try:
            return self._turn()
        except FatalError as error:
            return self._paused(error)
        except RetryableError as error:
            return self._away(error, error.retry_after)
        except HubError as error:
            return self._away(error)
        except Exception:
            # A mapping that breaks must not take the other instances with it; the cursor stands, so nothing is lost.
            log.exception("poll.broke", instance=self.stream.instance, stream=self.stream.name)
            return self._away(None)

    def _turn(self) -> float:
        if not self._ledger.writer.run(self._lease.mine):
            self.state = "elsewhere"
            return ELSEWHERE
        with self._ledger.reading() as conn:
            cursor = cursors.get(conn, self.stream.instance, self.stream.name)
        page = self.stream.polls.poll(self.stream.name, cursor)
        failpoint("poller.fetched")
        taken = self._keep(page, cursor)
        self._well()
        on = page.more and taken and page.cursor != cursor
        return 0.0 if on else self.stream.polls.interval

    def _keep(self, page: Page, cursor: str | None) -> bool:
        def mine(conn: Connection) -> bool:
            # The cursor too: a database that went on from a copy meanwhile may lack the page before.
            return self._lease.mine(conn) and cursors.get(conn, self.stream.instance, self.stream.name) == cursor

        return self._intake.page(
            self.stream.instance, self.stream.name, page.facts, page.cursor, mine, page.ahead
        ).result()

    def _away(self, error: HubError | None, wanted: float | None = None) -> float:
        self._failures += 1
        if self.state not in ("away", "paused"):
            self.state = "away"
            told = {} if error is None else error.fields()
            log.warning("poll.waits", instance=self.stream.instance, stream=self.stream.name, **told)
        longest = min(LONGEST, FIRST * 2 ** min(self._failures - 1, 10))
        return max(wanted or 0.0, SPREAD.uniform(longest / 2, longest))

    def _paused(self, error: FatalError) -> float:
        if self.state != "paused":
            self.state = "paused"
            log.error("poll.paused", instance=self.stream.instance, **error.fields())
            self._note("hub.connector.paused", error.message())
        return PAUSED

    def _well(self) -> None:
        was, self.state, self._failures = self.state, "ok", 0
        if was == "paused":
            self._note("hub.connector.resumed", None)
        if was in ("away", "paused"):
            log.info("poll.goes_on", instance=self.stream.instance, stream=self.stream.name)

    def _note(self, type_: str, reason: str | None) -> None:
        """Tell the log, unless it was told already: before a restart, or for another stream of the instance."""
        subject = f"connector/hub/{self.stream.instance}"

        def work(conn: Connection) -> None:
            if hub_events.newest(conn, subject) != type_:
                hub_events.note(conn, type_, subject, {"reason": reason}, self._clock.now())

        try:
            self._ledger.writer.run(work)
        except RetryableError as error:
            log.warning("poll.untold", instance=self.stream.instance, type=type_, code=error.code)
