"""Refused pushes: signed ones are stored in the ledger, unsigned ones only counted per minute."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from hub.errors import HubError, RejectedError
from hub.ledger import refused
from hub.ledger.ledger import Ledger
from hub.ledger.refused import Reason, Refusal
from hub.runtime.clock import Clock

ELSEWHERE = "-"
"""Counted in place of an instance for unknown webhook paths: names invented by senders are not instances."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds between writes of the counts, and between deletions of expired ones."""

    sums: float = 60.0
    forget: float = 3600.0


class StoredRefusalError(RejectedError):
    """A refusal that is already stored in the ledger."""


class Refusals:
    """Counts and stores refusals. `counting`, `keep` and `run` are for the event loop's thread."""

    def __init__(self, ledger: Ledger, clock: Clock, timing: Timing | None = None) -> None:
        self._ledger, self._clock, self._timing = ledger, clock, timing or Timing()
        self._counts: Counter[Reason] = Counter()

    @contextlib.contextmanager
    def counting(self, instance: str) -> Iterator[None]:
        """Count a refusal in this block, before the signature is verified."""
        try:
            yield
        except StoredRefusalError:
            raise
        except RejectedError as error:
            self._counts[Reason(instance, error.code)] += 1
            raise

    def count_signed(self, instance: str, code: str) -> None:
        """Count a refused push with a valid signature that is not stored itself."""
        self._counts[Reason(instance, code, signed=True)] += 1

    def keep(self, refusal: Refusal) -> Future[None]:
        """Store a signed push that is refused; the future is done once durable, RetryableError if the ledger is unavailable."""
        log.info("push.refused", instance=refusal.instance, code=refusal.code, delivery=refusal.ref)
        return self._ledger.writer.submit(lambda conn: refused.store(conn, refusal))

    async def run(self) -> None:
        """Write the counts once a minute, until cancelled; `flush` writes the rest."""
        loop = asyncio.get_running_loop()
        deleted_at = loop.time() - self._timing.forget
        while True:
            if loop.time() - deleted_at >= self._timing.forget:
                deleted_at = loop.time()
                _log_failure(self._ledger.writer.submit(lambda conn: refused.forget(conn, self._clock.now())))
            await asyncio.sleep(self._timing.sums)
            self.flush()

    def flush(self) -> None:
        """Log and write the counts since the last call. Returns at once; counts that cannot be written are lost."""
        counted, self._counts = self._counts, Counter()
        for reason, times in sorted(counted.items()):
            log.info("pushes.refused", instance=reason.instance, code=reason.code, signed=reason.signed, times=times)
        if counted:
            now = self._clock.now()
            _log_failure(self._ledger.writer.submit(lambda conn: refused.count(conn, counted, now)))


def _log_failure(written: Future[None]) -> None:
    """Log a failure of this write; the caller does not wait for it."""

    def report(done: Future[None]) -> None:
        error = done.exception() if not done.cancelled() else None
        if isinstance(error, HubError):
            log.warning("refusals.not_counted", **error.fields())
        elif error is not None:
            log.error("refusals.not_counted", exc_info=error)

    written.add_done_callback(report)
