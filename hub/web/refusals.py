"""What becomes of pushes that the door refuses: signed ones leave a trace in the ledger, the others are counted and summed."""

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
"""Stands for every address at which nothing takes pushes: names that strangers make up are no instances."""
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Timing:
    """How often sums are written, and how often what is old is forgotten, in seconds."""

    sums: float = 60.0
    forget: float = 3600.0


class KeptRefusalError(RejectedError):
    """A refusal that the ledger has already been told of."""


class Refusals:
    """Counts and keeps refusals. `counting`, `keep` and `run` are for the event loop's thread."""

    def __init__(self, ledger: Ledger, clock: Clock, timing: Timing | None = None) -> None:
        self._ledger, self._clock, self._timing = ledger, clock, timing or Timing()
        self._counts: Counter[Reason] = Counter()

    @contextlib.contextmanager
    def counting(self, instance: str) -> Iterator[None]:
        """Count what is refused in this block before its signature is known to be right."""
        try:
            yield
        except KeptRefusalError:
            raise
        except RejectedError as error:
            self._counts[Reason(instance, error.code)] += 1
            raise

    def count_signed(self, instance: str, code: str) -> None:
        """Count a push of a sender who knows the secret that is not kept itself."""
        self._counts[Reason(instance, code, signed=True)] += 1

    def keep(self, refusal: Refusal) -> Future[None]:
        """Keep a signed push that is refused; the future answers once it is durable, RetryableError when the ledger is away."""
        log.info("push.refused", instance=refusal.instance, code=refusal.code, delivery=refusal.ref)
        return self._ledger.writer.submit(lambda conn: refused.keep(conn, refusal))

    async def run(self) -> None:
        """Write the sums once a minute, until cancelled; what is left is written by `flush`."""
        loop = asyncio.get_running_loop()
        forgotten = loop.time() - self._timing.forget
        while True:
            if loop.time() - forgotten >= self._timing.forget:
                forgotten = loop.time()
                _let_go(self._ledger.writer.submit(lambda conn: refused.forget(conn, self._clock.now())))
            await asyncio.sleep(self._timing.sums)
            self.flush()

    def flush(self) -> None:
        """Log the sums since the last time and have them written. Returns at once; sums that cannot be written are lost."""
        counted, self._counts = self._counts, Counter()
        for reason, times in sorted(counted.items()):
            log.info("pushes.refused", instance=reason.instance, code=reason.code, signed=reason.signed, times=times)
        if counted:
            now = self._clock.now()
            _let_go(self._ledger.writer.submit(lambda conn: refused.count(conn, counted, now)))


def _let_go(written: Future[None]) -> None:
    """Nobody waits for it; only that it failed is said."""

    def tell(done: Future[None]) -> None:
        error = done.exception() if not done.cancelled() else None
        if isinstance(error, HubError):
            log.warning("refusals.not_counted", **error.fields())
        elif error is not None:
            log.error("refusals.not_counted", exc_info=error)

    written.add_done_callback(tell)
