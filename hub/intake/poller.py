"""Polls one outside system: records a page's facts and its cursor in one transaction, then reads the next page."""

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

REFUSED_CREDENTIALS_RETRY_S = 300.0
"""Seconds until the next try after refused credentials."""
MIN_BACKOFF_S, MAX_BACKOFF_S = 1.0, 60.0
"""Exponential back-off in an outage, in seconds: the first delay and the longest."""
OTHER_OWNER_RETRY_S = 5.0
"""Seconds until the next attempt at the lease of a stream that another process polls."""
LEASE_S = 60.0
"""Duration of a stream's lease in seconds: longer than a page takes."""
STALL_FACTOR = 5.0
"""A page may take this many times as long as other work before the watchdog acts: it may be many requests with timeouts."""
JITTER = SystemRandom()

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Stream:
    """One stream of an instance, and the connector that polls it."""

    instance: str
    name: str
    polls: PollingSource


class Poller:
    """Polls one stream. `run` is for one thread, since a poll may block; an outage is logged once at its start and its end."""

    def __init__(
        self, stream: Stream, ledger: Ledger, intake: Intake, clock: Clock, lease: Lease | None = None
    ) -> None:
        self.stream = stream
        self._ledger, self._intake, self._clock = ledger, intake, clock
        self._lease = lease or Lease(f"poll/{stream.instance}/{stream.name}", clock, LEASE_S)
        self._stopping = threading.Event()
        self._failures = 0
        self.state = "ok"
        """ok, away (outage), paused (credentials are refused) or elsewhere (another process polls the stream)."""

    def run(self) -> None:
        """Poll until stopped."""
        while not self._stopping.is_set():
            with at_work(f"poll-{self.stream.instance}-{self.stream.name}", STALL_FACTOR):
                wait = self.turn()
            self._stopping.wait(wait)
        self._lease.leave(self._ledger)

    def stop(self) -> None:
        """End `run` after its present page."""
        self._stopping.set()

    def turn(self) -> float:
        """Read one page; returns the seconds until the next. Raises no error that an outside system can cause."""
        try:
            return self._turn()
        except FatalError as error:
            return self._paused(error)
        except RetryableError as error:
            return self._outage(error, error.retry_after)
        except HubError as error:
            return self._outage(error)
        except Exception:
            # A broken mapping must not stop the other instances; the cursor does not move, so nothing is lost.
            log.exception("poll.broke", instance=self.stream.instance, stream=self.stream.name)
            return self._outage(None)

    def _turn(self) -> float:
        if not self._ledger.writer.run(self._lease.mine):
            self.state = "elsewhere"
            return OTHER_OWNER_RETRY_S
        with self._ledger.reading() as conn:
            cursor = cursors.get(conn, self.stream.instance, self.stream.name)
        page = self.stream.polls.poll(self.stream.name, cursor)
        failpoint("poller.fetched")
        taken = self._record_page(page, cursor)
        self._recovered()
        has_next = page.more and taken and page.cursor != cursor
        return 0.0 if has_next else self.stream.polls.interval

    def _record_page(self, page: Page, cursor: str | None) -> bool:
        def mine(conn: Connection) -> bool:
            # Compare the cursor too: a database restored from a copy in between may lack the page before.
            return self._lease.mine(conn) and cursors.get(conn, self.stream.instance, self.stream.name) == cursor

        return self._intake.page(
            self.stream.instance, self.stream.name, page.facts, page.cursor, mine, page.ahead
        ).result()

    def _outage(self, error: HubError | None, wanted: float | None = None) -> float:
        self._failures += 1
        if self.state not in ("away", "paused"):
            self.state = "away"
            fields = {} if error is None else error.fields()
            log.warning("poll.waits", instance=self.stream.instance, stream=self.stream.name, **fields)
        longest = min(MAX_BACKOFF_S, MIN_BACKOFF_S * 2 ** min(self._failures - 1, 10))
        return max(wanted or 0.0, JITTER.uniform(longest / 2, longest))

    def _paused(self, error: FatalError) -> float:
        if self.state != "paused":
            self.state = "paused"
            log.error("poll.paused", instance=self.stream.instance, **error.fields())
            self._note("hub.connector.paused", error.message())
        return REFUSED_CREDENTIALS_RETRY_S

    def _recovered(self) -> None:
        previous, self.state, self._failures = self.state, "ok", 0
        if previous == "paused":
            self._note("hub.connector.resumed", None)
        if previous in ("away", "paused"):
            log.info("poll.goes_on", instance=self.stream.instance, stream=self.stream.name)

    def _note(self, type_: str, reason: str | None) -> None:
        """Record the hub event, unless it was recorded already: before a restart, or for another stream of the instance."""
        subject = f"connector/hub/{self.stream.instance}"

        def work(conn: Connection) -> None:
            if hub_events.newest_type(conn, subject) != type_:
                hub_events.record_hub_event(conn, type_, subject, {"reason": reason}, self._clock.now())

        try:
            self._ledger.writer.run(work)
        except RetryableError as error:
            log.warning("poll.untold", instance=self.stream.instance, type=type_, code=error.code)
