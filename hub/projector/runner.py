"""The runner: keeps one board equal to the fold of the log.

Reads a batch, folds it in memory, and writes rows and position in one transaction. Any number of runners may be on standby for a
board; one of them writes. A takeover raises the epoch; a write under an old epoch is fenced, and its runner returns to standby.
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
from hub.kit.records import read_event, read_unchecked
from hub.log.event_log import EventLog, Reader, Record, read_to_end
from hub.log.sequence_gaps import SettledGaps
from hub.log.sequences import SettledOffsets
from hub.projector.folding import E, FoldableBatch, FoldPosition, RowChange, fold, keys_of, take, to_fold
from hub.projector.store import Batch, BoardStore, Claim, FencedError, Owner
from hub.runtime.clock import Clock, SystemClock
from hub.runtime.watchdog import at_work
from schemas.envelope import format_time, parse_time
from schemas.topics import EVENTS

MAX_BATCH = 2000
"""Records in one transaction."""
MIN_BATCH = 50
FAST_BATCH_S, SLOW_BATCH_S = 0.1, 0.5
"""Transaction times: below the first, full batches grow; above the second, batches shrink."""
HEARTBEAT_INTERVAL_S = 2.0
"""Seconds between two heartbeats of a board's writer."""
TAKEOVER_TIMEOUT_S = 8.0
"""Seconds without a heartbeat after which a standby takes over. It affects delay only: the epoch guarantees correctness."""
FETCH_WAIT_S = 0.05
"""Seconds that a fetch waits for more records: records that arrive together are written in one transaction."""
REBUILD_PATIENCE_FACTOR = 20.0
"""Watchdog patience, as a multiple of the usual one, while a board is claimed: one of another version is rebuilt first."""
READ_TIMEOUT_S = 0.5
"""Seconds to wait for a record before checking whether to stop."""

OnCommit = Callable[[str, Sequence[RowChange], int], None]
"""Called after a commit with the board's name, the changed rows, and the number of log records that the board now reflects."""
RebuildBoard = Callable[[AnyProjection], object]
"""Rebuilds a board whose stored version differs."""
log = structlog.get_logger(__name__)


def holder_id() -> str:
    """An id of this process from which another process on the same machine can check whether it is alive."""
    return f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def _machine() -> str:
    """The host name and PID namespace: PIDs of two containers with the same host name are not comparable."""
    try:
        return f"{socket.gethostname()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux: no PID namespaces
        return socket.gethostname()


@dataclass
class BoardLease:
    """The right to write a board, and how far it is folded."""

    claim: Claim
    places: dict[int, FoldPosition]
    size: int = 200


class LogEnds:
    """The log's end offsets, fetched once for all boards. Each result is timestamped before its request."""

    def __init__(self, events: EventLog, clock: Clock, every: float = HEARTBEAT_INTERVAL_S) -> None:
        self.log, self.clock, self.every = events, clock, every
        self._lock = threading.Lock()
        self._known: tuple[datetime, dict[int, int]] | None = None

    def now(self) -> tuple[datetime, dict[int, int]]:
        """A time and the end offsets at or after it. Raises RetryableError while the log is unavailable."""
        with self._lock:
            now = self.clock.now()
            if self._known is None or (now - self._known[0]).total_seconds() >= self.every:
                self._known = (now, self.log.ends(EVENTS.name))
            return self._known


@dataclass
class Runner:
    """Runs one board. Calls `on_commit` after each commit, in its own thread, and `renew` to rebuild a board of another version."""

    log: EventLog
    store: BoardStore
    projection: AnyProjection
    clock: Clock = field(default_factory=SystemClock)
    on_commit: OnCommit = lambda name, changes, at: None
    renew: RebuildBoard = lambda projection: None
    ends: LogEnds | None = None
    holder: str = field(default_factory=holder_id)
    every: float = HEARTBEAT_INTERVAL_S
    _observed_owner: tuple[Owner, float] | None = None
    _settled: dict[int, SettledOffsets] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`: wait on standby, claim the board, write. Raises FatalError; retries while store or log are unavailable."""
        away = False
        while not stop.is_set():
            try:
                with at_work(f"board-{self.projection.name}", REBUILD_PATIENCE_FACTOR):
                    lease = self.try_claim()
                if lease is None:
                    stop.wait(1.0)
                else:
                    away = self._log_resumed(away)
                    self._write(lease, stop)
            except FencedError:
                log.info("board.taken_over", board=self.projection.name)
            except RetryableError as error:
                if not away:
                    log.warning("board.waiting", board=self.projection.name, error=str(error))
                away = True
                stop.wait(error.retry_after or 1.0)

    def _log_resumed(self, away: bool) -> bool:
        if away:
            log.info("board.resumed", board=self.projection.name)
        return False

    def catch_up(self, limit: int = MAX_BATCH) -> int:
        """Fold up to the log's current end and release the board; the record count. RetryableError if another runner writes."""
        lease = self.try_claim()
        if lease is None:
            raise RetryableError("HUB-E5103", board=self.projection.name)
        try:
            batches = read_to_end(self.log, EVENTS.name, _offsets(lease), limit=limit)
            return sum(self.fold(lease, batch) for batch in batches)
        finally:
            self.store.release(self.projection.name, lease.claim)

    def try_claim(self) -> BoardLease | None:
        """Claim the board unless a live runner writes it. A board of another version is rebuilt, and claimed on the next call."""
        name = self.projection.name
        owner = self.store.owner(name)
        if owner is not None and not self._is_free(owner):
            return None
        if owner is not None and owner.version != self.projection.version:
            self.renew(self.projection)
            return None
        places = self.store.places(name)
        ends = self.check_ahead(places)
        claim = self.store.claim(self.projection, self.holder, owner)
        if claim is None:
            return None
        # Read again: the previous writer may have advanced the position before the claim raised the epoch.
        places = self.store.places(name)
        return BoardLease(claim, {partition: places.get(partition, FoldPosition()) for partition in ends})

    def check_ahead(self, places: Mapping[int, FoldPosition]) -> dict[int, int]:
        """The log's end offsets. Raises FatalError for a board that is ahead of them: this is another log, or a truncated one."""
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
        if self._observed_owner is None or (self._observed_owner[0].epoch, self._observed_owner[0].beat) != (
            owner.epoch,
            owner.beat,
        ):
            self._observed_owner = (owner, now)
        return now - self._observed_owner[1] >= TAKEOVER_TIMEOUT_S

    def _write(self, lease: BoardLease, stop: threading.Event) -> None:
        reader = self.log.reader(EVENTS.name, _offsets(lease), gather=FETCH_WAIT_S)
        beat_at = -self.every
        try:
            while not stop.is_set():
                with at_work(f"board-{self.projection.name}"):
                    if self.clock.monotonic() - beat_at >= self.every:
                        self._beat(lease)
                        beat_at = self.clock.monotonic()
                    self._poll(lease, reader)
        finally:
            reader.close()
        self.store.release(self.projection.name, lease.claim)

    def _poll(self, lease: BoardLease, reader: Reader) -> None:
        batch = reader.read(lease.size, READ_TIMEOUT_S)
        if not batch:
            return
        started = self.clock.monotonic()
        self.fold(lease, batch)
        lease.size = next_size(lease.size, len(batch), self.clock.monotonic() - started)

    def _beat(self, lease: BoardLease) -> None:
        """Write a heartbeat and, if the whole log is folded, `fresh_at`, which stays unchanged while the log is unavailable."""
        fresh = None
        try:
            measured_at, ends = (self.ends or LogEnds(self.log, self.clock, self.every)).now()
            if all(lease.places[partition].next_offset >= end for partition, end in ends.items()):
                fresh = format_time(measured_at)
        except RetryableError:
            log.debug("board.log_away", board=self.projection.name)
        self.store.beat(self.projection.name, lease.claim, fresh)

    def _is_settled(self, loss: FatalError) -> bool:
        """Whether a later record of the log settles this gap: a person has repaired or accepted it. Rare."""
        partition, offset = loss.seen["partition"], loss.seen["offset"]
        self._settled[partition] = self._settled.get(partition, {}) | SettledGaps(self.log, partition, offset).look()
        return offset in self._settled[partition]

    def fold(self, lease: BoardLease, records: Sequence[Record]) -> int:
        """Fold and write a batch; the number of records. At a gap it writes the records before the gap, then raises FatalError."""
        match self.projection:
            case Projection() as board:
                loss = self._fold_board(lease, board, records)
            case Index() as index:
                loss = self._index_batch(lease, index, records)
        if loss is not None:
            raise loss
        return len(records)

    def _fold_board(self, lease: BoardLease, board: Projection, records: Sequence[Record]) -> FatalError | None:
        taken = self._take(lease, records, read_event)
        events = to_fold(taken.found)
        changes = fold(board, events, self.store.rows(board.table, keys_of(board, events)))
        self._write_batch(lease, taken, Batch({}, changes={board.table: changes}), list(changes.values()))
        return taken.loss

    def _index_batch(self, lease: BoardLease, index: Index, records: Sequence[Record]) -> FatalError | None:
        taken = self._take(lease, records, read_unchecked)
        rows = index.rows([EventRecord(*each) for each in (*taken.found, *taken.repeats)])
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
        """Write a batch and the positions that it moved."""
        moved = {p: place for p, place in taken.places.items() if place != lease.places[p]}
        if not moved:
            return
        delay = _delay_ms(self.clock.now(), [event.recordedtime for _, event in taken.found])
        whole = replace(batch, places=moved, delay_ms=delay, unreadable=taken.unreadable)
        self.store.commit(self.projection.name, lease.claim, whole)
        lease.places = taken.places
        self.on_commit(self.projection.name, changes, sum(place.next_offset for place in lease.places.values()))


def next_size(size: int, read: int, seconds: float) -> int:
    """The size limit of the next batch: doubled while full batches are fast, halved when they are slow."""
    if seconds > SLOW_BATCH_S:
        return max(MIN_BATCH, size // 2)
    return min(MAX_BATCH, size * 2) if read >= size and seconds < FAST_BATCH_S else size


def _offsets(lease: BoardLease) -> Mapping[int, int]:
    return {partition: place.next_offset for partition, place in lease.places.items()}


def _delay_ms(now: datetime, recorded: Sequence[str]) -> int:
    """Milliseconds from recorded to shown, of the newest event; capped at an hour, as a replay of old events measures nothing."""
    if not recorded:
        return 0
    return min(3_600_000, max(0, round((now - parse_time(max(recorded))).total_seconds() * 1000)))


def _is_dead(holder: str) -> bool:
    """Whether a writer was a process of this machine that no longer exists."""
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
