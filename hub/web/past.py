"""What happened, for pages and programs: the ledger and the trail, each by a look of its own, and one open reader of the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from hub.errors import RetryableError
from hub.ledger.ledger import Ledger
from hub.log.event_log import PlaceReader
from hub.projector.store import BoardStore
from hub.projector.trail import Trail
from hub.replay.history import History


@dataclass(frozen=True)
class Past:
    """Safe to use from several threads. Without a ledger or a reader, the rest answers."""

    store: BoardStore
    ledger: Ledger | None
    log: PlaceReader | None

    @contextmanager
    def looking(self) -> Iterator[History]:
        """One look. Raises RetryableError while the boards' store is away; a ledger that is away is a gap."""
        with ExitStack() as stack:
            trail = Trail.of(stack.enter_context(self.store.reading()))
            ledger, away = None, None
            try:
                ledger = stack.enter_context(self.ledger.reading()) if self.ledger is not None else None
            except RetryableError as error:
                away = error
            history = History(ledger, trail, self.log)
            history.gaps.ledger = away
            yield history
