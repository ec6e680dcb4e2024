"""Checks that the boards are folded from the hub's log. Offsets mean nothing in another log, so another log resets the boards.

The ledger knows which log is the hub's: it refuses any other, and records each time that the log was found truncated (a `Cut`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from hub.errors import FatalError, RetryableError
from hub.kit.projection import AnyProjection
from hub.ledger import identity
from hub.ledger.identity import MAX_CUTS, Cut
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.projector.store import BoardStore
from schemas.topics import EVENTS

LEDGER_POLL_INTERVAL_S = 0.5
"""Seconds between checks whether the ledger has accepted the log."""
LOG_CHECK_INTERVAL_S = 2.0
"""Seconds between checks whether the log was replaced or truncated while the boards fold it."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LogHistory:
    """A log: its identity, the outbox that writes to it, and the truncations found so far."""

    log: str
    outbox: str
    cuts: Sequence[Cut] = ()

    @property
    def cut(self) -> str:
        """The mark of the last truncation; "" for none."""
        return self.cuts[-1].mark if self.cuts else ""

    def as_value(self) -> dict[str, str]:
        """The values that the board store keeps."""
        return {"log": self.log, "outbox": self.outbox, "cut": self.cut}


def ledger_history(ledger: Ledger) -> LogHistory | None:
    """The history of the ledger's log; None before the ledger has accepted one."""
    with ledger.reading() as conn:
        name = identity.get_value(conn, identity.LOG)
        cuts, outbox = identity.cuts(conn), identity.get_value(conn, "outbox")
    return None if name is None else LogHistory(name, outbox or "", cuts)


def await_known_log(
    store: BoardStore,
    events: EventLog,
    history: Callable[[], LogHistory | None],
    projections: Iterable[AnyProjection],
    stop: threading.Event,
) -> None:
    """Wait until the ledger has accepted the log, so that folding may continue; empty the boards if the log is a different one.

    Raises FatalError for a board store of another hub.
    """
    actual, waiting = events.identity(EVENTS.name), False
    while not stop.is_set():
        stored, known = store.history(), history()
        if known is not None and known.log == actual:
            _apply(store, stored, known, list(projections))
            return
        if not stored or stored["log"] == actual:
            return
        if not waiting:
            log.warning("boards.waiting", known=stored["log"], seen=actual)
        waiting = True
        stop.wait(LEDGER_POLL_INTERVAL_S)


def _apply(store: BoardStore, stored: dict[str, str], known: LogHistory, projections: list[AnyProjection]) -> None:
    if is_different_log(stored, known, store.last_sequences(known.outbox)):
        if stored["log"] != known.log and stored["outbox"] != known.outbox:
            raise FatalError("HUB-E5105", outbox=stored["outbox"], known=stored["log"], seen=known.log)
        log.warning("boards.begin_anew", known=stored["log"], seen=known.log)
        store.reset(projections, known.as_value())
    elif stored != known.as_value():
        store.note_history(known.as_value())


def is_different_log(stored: Mapping[str, str], known: LogHistory, last_sequences: Mapping[int, int]) -> bool:
    """Whether boards folded from the stored log are invalid for the known one.

    `last_sequences`: partition → the last sequence that was folded. Boards that were folded no further than a cut stay valid.
    """
    if not stored or stored["log"] != known.log:
        return bool(stored)
    newer_cuts = _cuts_after(stored["cut"], known.cuts)
    return newer_cuts is None or any(
        last_sequences.get(p, 0) > last for cut in newer_cuts for p, last in cut.tails.items()
    )


def _cuts_after(mark: str, cuts: Sequence[Cut]) -> Sequence[Cut] | None:
    """The cuts after the one with this mark; None when older cuts were dropped from the list. A new ledger has none."""
    marks = [cut.mark for cut in cuts]
    if mark in marks:
        return cuts[marks.index(mark) + 1 :]
    return cuts if not cuts or (not mark and len(cuts) < MAX_CUTS) else None


def watch(
    store: BoardStore, history: Callable[[], LogHistory | None], changed: Callable[[], None], stop: threading.Event
) -> None:
    """Call `changed` once the ledger's log, or its last truncation, invalidates the boards."""
    while not stop.wait(LOG_CHECK_INTERVAL_S):
        try:
            stored, known = store.history(), history()
        except RetryableError:
            continue
        if known is None or stored == known.as_value():
            continue
        if is_different_log(stored, known, store.last_sequences(known.outbox)):
            changed()
            return
        store.note_history(known.as_value())
