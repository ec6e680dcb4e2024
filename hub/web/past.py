"""Access to past events for pages and the API: the ledger and the trail, each in a read transaction, and a shared log reader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hub.errors import RetryableError
from hub.ledger.ledger import Ledger
from hub.log.event_log import OffsetReader
from hub.projector.store import BoardStore
from hub.projector.trail import Trail
from hub.replay.history import History


@dataclass(frozen=True)
class Past:
    """The sources of past events. Safe to use from several threads; works without a ledger or a log reader."""

    store: BoardStore
    ledger: Ledger | None
    log: OffsetReader | None

    @contextmanager
    def looking(self) -> Iterator[History]:
        """A history over consistent snapshots. RetryableError while the board store is unavailable; a ledger outage is a gap."""
        with ExitStack() as stack:
            trail = Trail.of(stack.enter_context(self.store.reading()))
            ledger, away = None, None
            try:
                ledger = stack.enter_context(self.ledger.reading()) if self.ledger is not None else None
            except RetryableError as error:
                away = error
            history = History(ledger, trail, self.log)
            history.gaps.ledger_error = away
            yield history
