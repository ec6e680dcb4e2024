"""Which log the boards were folded from. Offsets mean nothing in another one, so there the boards begin anew.

The ledger says which log is the hub's: it refuses a wrong one, and notes when the right one was found to be older than it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from hub.errors import FatalError, RetryableError
from hub.kit.projection import AnyProjection
from hub.ledger import identity
from hub.ledger.identity import MOST_CUTS, Cut
from hub.ledger.ledger import Ledger
from hub.log.event_log import EventLog
from hub.projector.store import BoardStore
from schemas.topics import EVENTS

WAIT = 0.5
"""Seconds between looks whether the ledger has settled on the log."""
LOOK = 2.0
"""Seconds between looks whether the log was exchanged under the boards."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LogHistory:
    """A log by its identity, the outbox that writes to it, and the times that it was found cut."""

    log: str
    outbox: str
    cuts: Sequence[Cut] = ()

    @property
    def cut(self) -> str:
        """The mark of the last one; "" for none."""
        return self.cuts[-1].mark if self.cuts else ""

    def as_value(self) -> dict[str, str]:
        """As the store keeps it."""
        return {"log": self.log, "outbox": self.outbox, "cut": self.cut}


def settled(ledger: Ledger) -> LogHistory | None:
    """What the ledger knows of its log; None before it has settled on one."""
    with ledger.reading() as conn:
        name = identity.known(conn, identity.LOG)
        cuts, outbox = identity.cuts(conn), identity.known(conn, "outbox")
    return None if name is None else LogHistory(name, outbox or "", cuts)


def recognise(
    store: BoardStore,
    events: EventLog,
    history: Callable[[], LogHistory | None],
    projections: Iterable[AnyProjection],
    stop: threading.Event,
) -> None:
    """Return once the boards may be folded on from this log; when it is another one than before, they were emptied.

    Waits for the ledger to settle on the log. Raises FatalError for a store of another hub.
    """
    seen, waiting = events.identity(EVENTS.name), False
    while not stop.is_set():
        noted, known = store.history(), history()
        if known is not None and known.log == seen:
            _begin(store, noted, known, list(projections))
            return
        if not noted or noted["log"] == seen:
            return
        if not waiting:
            log.warning("boards.waiting", known=noted["log"], seen=seen)
        waiting = True
        stop.wait(WAIT)


def _begin(store: BoardStore, noted: dict[str, str], known: LogHistory, projections: list[AnyProjection]) -> None:
    if is_another(noted, known, store.lasts(known.outbox)):
        if noted["log"] != known.log and noted["outbox"] != known.outbox:
            raise FatalError("HUB-E5105", outbox=noted["outbox"], known=noted["log"], seen=known.log)
        log.warning("boards.begin_anew", known=noted["log"], seen=known.log)
        store.begin_anew(projections, known.as_value())
    elif noted != known.as_value():
        store.note_history(known.as_value())


def is_another(noted: Mapping[str, str], known: LogHistory, lasts: Mapping[int, int]) -> bool:
    """Whether what was read of the noted log tells nothing of the one that is known.

    `lasts`: partition → the last sequence that was folded. Who has read no further than a cut can go on.
    """
    if not noted or noted["log"] != known.log:
        return bool(noted)
    since = _since(noted["cut"], known.cuts)
    return since is None or any(lasts.get(p, 0) > last for cut in since for p, last in cut.tails.items())


def _since(mark: str, cuts: Sequence[Cut]) -> Sequence[Cut] | None:
    """The cuts behind the one with this mark; None when they are no longer all known. A new ledger knows of none."""
    marks = [cut.mark for cut in cuts]
    if mark in marks:
        return cuts[marks.index(mark) + 1 :]
    return cuts if not cuts or (not mark and len(cuts) < MOST_CUTS) else None


def watch(
    store: BoardStore, history: Callable[[], LogHistory | None], changed: Callable[[], None], stop: threading.Event
) -> None:
    """Call `changed` once the ledger knows another log, or another cut of it, than the boards are folded from."""
    while not stop.wait(LOOK):
        try:
            noted, known = store.history(), history()
        except RetryableError:
            continue
        if known is None or noted == known.as_value():
            continue
        if is_another(noted, known, store.lasts(known.outbox)):
            changed()
            return
        store.note_history(known.as_value())
