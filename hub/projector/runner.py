"""The runner: keeps one board equal to the fold of the log.

Reads a batch, folds it in memory, writes rows and position in one transaction. Any number of runners may stand ready for a
board; one of them writes. Taking over raises the epoch, and who writes under an old epoch writes nothing and stands by again.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog

from hub.errors import FatalError, RetryableError
from hub.kit.projection import AnyProjection, EventRecord, Index, Projection
from hub.kit.records import read_event, read_plain
from hub.log.event_log import EventLog, Reader, Record, read_to_end
from hub.log.sequence_gaps import SettledGaps
from hub.log.sequences import Dealt
from hub.projector.folding import E, FoldableBatch, FoldPosition, RowChange, fold, keys_of, take, to_fold
from hub.projector.store import Batch, BoardStore, Claim, FencedError, Owner
from hub.runtime.clock import Clock, SystemClock
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time
from schemas.topics import EVENTS

MOST = 2000
"""Records in one transaction."""
LEAST = 50
QUICK, SLOW = 0.1, 0.5
"""Seconds a transaction may take before batches grow no further, and before they shrink."""
BEAT = 2.0
"""Seconds between two signs of life of a board's writer."""
SILENT = 8.0
"""Seconds without one after which another takes over. Only delay depends on it: correctness is the epoch's."""
GATHER = 0.05
"""Seconds for which the log gathers news: what comes together is written in one transaction."""
RENEWAL = 20.0
"""A board of another version may take so many times as long as other work: it is built anew before it is claimed."""
WAIT = 0.5
"""Seconds to wait for a record before looking whether to stop."""

Told = Callable[[str, Sequence[RowChange], int], None]
"""Takes the board's name, the rows that changed, and how many records of the log the board now reflects."""
Renew = Callable[[AnyProjection], object]
"""Builds a board of another version anew."""
log = structlog.get_logger(__name__)


def holder_id() -> str:
    """This program, in a way that another on the same machine can ask whether it still lives."""
    return f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def _machine() -> str:
    """This machine and its process ids: two containers of one name count theirs apart, and must not judge each other's."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux, no containers
        return socket.gethostname()


@dataclass
class BoardLease:
    """The right to write a board, and how far it is folded."""

    claim: Claim
    places: dict[int, FoldPosition]
    size: int = 200


class Ends:
    """Where the log ends, asked once for all boards. Each answer holds from before it was asked for."""

    def __init__(self, events: EventLog, clock: Clock, every: float = BEAT) -> None:
        self.log, self.clock, self.every = events, clock, every
        self._lock = threading.Lock()
        self._known: tuple[datetime, dict[int, int]] | None = None

    def now(self) -> tuple[datetime, dict[int, int]]:
        """A moment and the ends at or after it; raises RetryableError while the log is away."""
        with self._lock:
            asked = self.clock.now()
            if self._known is None or (asked - self._known[0]).total_seconds() >= self.every:
                self._known = (asked, self.log.ends(EVENTS.name))
            return self._known


@dataclass
class Runner:
    """Runs one board. `told` hears of each commit, after it, in the runner's thread; `renew` builds a board of another version."""

    log: EventLog
    store: BoardStore
    projection: AnyProjection
    clock: Clock = field(default_factory=SystemClock)
    told: Told = lambda name, changes, at: None
    renew: Renew = lambda projection: None
    ends: Ends | None = None
    holder: str = field(default_factory=holder_id)
    every: float = BEAT
    _seen: tuple[Owner, float] | None = None
    _settled: dict[int, Dealt] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: stand by, take over, write. Raises FatalError; what is away is waited for."""
        away = False
        while not stop.is_set():
            try:
                with at_work(f"board-{self.projection.name}", RENEWAL):
                    lease = self.try_claim()
                if lease is None:
                    stop.wait(1.0)
                else:
                    away = self._back(away)
                    self._write(lease, stop)
            except FencedError:
                log.info("board.taken_over", board=self.projection.name)
            except RetryableError as error:
                if not away:
                    log.warning("board.waiting", board=self.projection.name, error=str(error))
                away = True
                stop.wait(error.retry_after or 1.0)

    def _back(self, away: bool) -> bool:
        if away:
            log.info("board.resumed", board=self.projection.name)
        return False

    def catch_up(self, limit: int = MOST) -> int:
        """Fold what lies in the log now and let go: how many records that were. Raises RetryableError if another writes."""
        lease = self.try_claim()
        if lease is None:
            raise RetryableError("HUB-E5103", board=self.projection.name)
        try:
            batches = read_to_end(self.log, EVENTS.name, _offsets(lease), limit=limit)
            return sum(self.fold(lease, batch) for batch in batches)
        finally:
            self.store.release(self.projection.name, lease.claim)

    def try_claim(self) -> BoardLease | None:
        """Take the board over if nobody alive writes it. A board of another version is renewed first, and then looked at again."""
        name = self.projection.name
        seen = self.store.owner(name)
        if seen is not None and not self._is_free(seen):
            return None
        if seen is not None and seen.version != self.projection.version:
            self.renew(self.projection)
            return None
        places = self.store.places(name)
        ends = self.check_ahead(places)
        claim = self.store.claim(self.projection, self.holder, seen)
        if claim is None:
            return None
        # Read again: whoever wrote until now may have moved on before its epoch was gone.
        places = self.store.places(name)
        return BoardLease(claim, {partition: places.get(partition, FoldPosition()) for partition in ends})

    def check_ahead(self, places: Mapping[int, FoldPosition]) -> dict[int, int]:
        """Where the log ends. Raises FatalError for a board that reflects more than that: this is another log, or one cut off."""
        ends = self.log.ends(EVENTS.name)
        for partition, place in places.items():
            end = ends.get(partition, 0)
            if place.next_offset > end:
                raise FatalError(
                    "HUB-E5104", board=self.projection.name, partition=partition, next=place.next_offset, end=end
                )
        return ends

    def _is_free(self, owner: Owner) -> bool:
        if owner.holder in ("", self.holder) or _is_dead(owner.holder):
            return True
        now = self.clock.monotonic()
        if self._seen is None or (self._seen[0].epoch, self._seen[0].beat) != (owner.epoch, owner.beat):
            self._seen = (owner, now)
        return now - self._seen[1] >= SILENT

    def _write(self, lease: BoardLease, stop: threading.Event) -> None:
        reader = self.log.reader(EVENTS.name, _offsets(lease), gather=GATHER)
        beaten = -self.every
        try:
            while not stop.is_set():
                with at_work(f"board-{self.projection.name}"):
                    if self.clock.monotonic() - beaten >= self.every:
                        self._beat(lease)
                        beaten = self.clock.monotonic()
                    self._turn(lease, reader)
        finally:
            reader.close()
        self.store.release(self.projection.name, lease.claim)

    def _turn(self, lease: BoardLease, reader: Reader) -> None:
        batch = reader.read(lease.size, WAIT)
        if not batch:
            return
        began = self.clock.monotonic()
        self.fold(lease, batch)
        lease.size = next_size(lease.size, len(batch), self.clock.monotonic() - began)

    def _beat(self, lease: BoardLease) -> None:
        """Tell that we live; and that all is folded, if it is. A log that is away leaves the board as fresh as it was."""
        fresh = None
        try:
            asked, ends = (self.ends or Ends(self.log, self.clock, self.every)).now()
            if all(lease.places[partition].next_offset >= end for partition, end in ends.items()):
                fresh = format_time(asked)
        except RetryableError:
            log.debug("board.log_away", board=self.projection.name)
        self.store.beat(self.projection.name, lease.claim, fresh)

    def _is_settled(self, loss: FatalError) -> bool:
        """Whether the log says further on that what is missing here was dealt with. Rare: a person has done that."""
        partition, offset = loss.seen["partition"], loss.seen["offset"]
        self._settled[partition] = self._settled.get(partition, {}) | SettledGaps(self.log, partition, offset).look()
        return offset in self._settled[partition]

    def fold(self, lease: BoardLease, records: Sequence[Record]) -> int:
        """Fold a batch and write it: how many records were taken. At a gap, what lies before it is kept; then FatalError."""
        match self.projection:
            case Projection() as board:
                loss = self._fold_board(lease, board, records)
            case Index() as index:
                loss = self._add(lease, index, records)
        if loss is not None:
            raise loss
        return len(records)

    def _fold_board(self, lease: BoardLease, board: Projection, records: Sequence[Record]) -> FatalError | None:
        taken = self._take(lease, records, read_event)
        events = to_fold(taken.found)
        changes = fold(board, events, self.store.rows(board.table, keys_of(board, events)))
        self._write_batch(lease, taken, Batch({}, changes={board.table: changes}), list(changes.values()))
        return taken.loss

    def _add(self, lease: BoardLease, index: Index, records: Sequence[Record]) -> FatalError | None:
        taken = self._take(lease, records, read_plain)
        rows = index.rows([EventRecord(*each) for each in (*taken.found, *taken.again)])
        self._write_batch(lease, taken, Batch({}, added=dict(zip(index.tables, rows, strict=True))), ())
        return taken.loss

    def _take(
        self, lease: BoardLease, records: Sequence[Record], read: Callable[[Record], E | None]
    ) -> FoldableBatch[E]:
        name = self.projection.name
        taken = take(records, lease.places, name, read, self._settled)
        while taken.loss is not None and self._is_settled(taken.loss):
            taken = take(records, lease.places, name, read, self._settled)
        return taken

    def _write_batch(
        self, lease: BoardLease, taken: FoldableBatch[E], batch: Batch, changes: Sequence[RowChange]
    ) -> None:
        """Write what a batch brings, and where it ends."""
        moved = {p: place for p, place in taken.places.items() if place != lease.places[p]}
        if not moved:
            return
        delay = _delay_ms(self.clock.now(), [event.recordedtime for _, event in taken.found])
        whole = replace(batch, places=moved, delay_ms=delay, unreadable=taken.unreadable)
        self.store.commit(self.projection.name, lease.claim, whole)
        lease.places = taken.places
        self.told(self.projection.name, changes, sum(place.next_offset for place in lease.places.values()))


def next_size(size: int, read: int, seconds: float) -> int:
    """How many records the next batch may hold: twice as many while full ones are quick, half when they are slow."""
    if seconds > SLOW:
        return max(LEAST, size // 2)
    return min(MOST, size * 2) if read >= size and seconds < QUICK else size


def _offsets(lease: BoardLease) -> Mapping[int, int]:
    return {partition: place.next_offset for partition, place in lease.places.items()}


def _delay_ms(now: datetime, recorded: Sequence[str]) -> int:
    """From recorded to shown, of the newest event; a replay of old ones says nothing about that and is cut at an hour."""
    if not recorded:
        return 0
    return min(3_600_000, max(0, round((now - parse_time(max(recorded))).total_seconds() * 1000)))


def _is_dead(holder: str) -> bool:
    """Whether a writer on this machine is surely gone."""
    host, process, _ = holder.rsplit(":", 2)
    if host != _machine() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
