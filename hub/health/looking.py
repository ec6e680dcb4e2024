"""Collects the health facts of a hub: its programs on this machine, its ledger, its log and its boards.

The state of programs comes from the supervisor's notes and the operating system; how far each board is folded, from the board
store. A store that does not answer is reported in `Facts.away`.

The board store's columns are declared here because the hub does not import its boards; `tests/unit/hub/cli` compares them with
what `hub.projector.store` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hub.errors import LANGUAGES, HubError
from hub.health.log_look import Front, LogLook, LogPosition
from hub.health.status import Away, Facts, ProgramFact, Queue, Stage
from hub.ledger.ledger import read_snapshot
from hub.rules.reload import BrokenFile
from hub.runtime.clock import Clock, SystemClock
from hub.runtime.process import is_running, is_suspended
from hub.runtime.program import is_ready
from hub.runtime.run_folder import RunFolder
from schemas.envelope import parse_time
from schemas.topics import COMMANDS, EVENTS


def programs_here(data: Path, *, expected: bool) -> tuple[bool | None, tuple[ProgramFact, ...]]:
    """Whether a supervisor runs on this machine, and its programs. None: there is none, and none is `expected`."""
    notes = RunFolder(data / "run").notes()
    if not notes:
        return (False if expected else None), ()
    frozen, restarts = notes.get("frozen", ()), notes.get("restarts", {})
    programs = [
        ProgramFact(name, pid, _state(data, name, pid, name in frozen), restarts.get(name, 0))
        for name, pid in notes.get("programs", {}).items()
    ]
    if is_suspended(int(notes["pid"])):
        programs.append(ProgramFact("supervisor", int(notes["pid"]), "frozen"))
    return True, tuple(programs)


def _state(data: Path, name: str, pid: int | None, unresponsive: bool) -> str:
    if pid is None or not is_running(pid):  # the notes of a hanging supervisor may name ended processes
        return "down"
    if unresponsive or is_suspended(pid):
        return "frozen"
    return "ready" if name == "broker" or is_ready(data, name, pid) else "starting"


@dataclass(frozen=True)
class BoardPlace:
    """Partition → next offset, and the time at which the board last reflected the whole log (empty: never)."""

    next_offsets: Mapping[int, int]
    fresh_at: str

    def behind(self, ends: Mapping[int, int]) -> int:
        """The number of log records that the board has not folded."""
        return sum(max(0, end - self.next_offsets.get(partition, 0)) for partition, end in ends.items())


def board_places(url: str) -> dict[str, BoardPlace]:
    """Board name → its position; empty when there is no store yet."""
    from sqlalchemy import column, select, table

    owners = table("board_owners", column("projection"), column("fresh_at"))
    positions = table("board_positions", column("projection"), column("partition"), column("next_offset"))
    with read_snapshot(url, "board_owners") as conn:
        if conn is None:
            return {}
        places: dict[str, dict[int, int]] = {}
        for row in conn.execute(select(positions)):
            places.setdefault(row.projection, {})[row.partition] = row.next_offset
        found = conn.execute(select(owners).order_by(owners.c.projection)).all()
    shown = [row for row in found if not row.projection.endswith("__shadow")]
    return {row.projection: BoardPlace(places.get(row.projection, {}), row.fresh_at) for row in shown}


if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hub.health.ledger_look import LedgerLook
    from hub.health.rhythm import Rhythm

T = TypeVar("T")
LEASE_GRACE_S = 30.0
"""Seconds after a lease expired for which a connectors program on another machine still counts as running."""


@dataclass
class Looker:
    """Collects facts. `ledger` yields a connection, or None without a ledger; `log` returns None where no broker is expected."""

    ledger: Callable[[], AbstractContextManager[Connection | None]]
    boards: Callable[[], Mapping[str, BoardPlace]]
    log: Callable[[], LogLook | None]
    programs: Callable[[], tuple[bool | None, tuple[ProgramFact, ...]]]
    """Whether a supervisor runs here (None: none is expected), and its programs."""
    intervals: Mapping[str, float]
    broken: Callable[[], tuple[BrokenFile, ...]] = tuple
    """Mistakes in the home's files."""
    rhythm: Rhythm | None = None
    """Counts new events on each call of `look`."""
    clock: Clock = field(default_factory=SystemClock)

    def look(self) -> Facts:
        """Collect all facts once. An unavailable store raises nothing; it is listed in `Facts.away`."""
        away: list[Away] = []
        running, programs = self.programs()
        now = self.clock.now()
        ledger = _attempt("ledger", away, lambda: self._ledger(now))
        places = _attempt("boards", away, self.boards) or {}
        queues = _attempt("broker", away, lambda: self._log(dict(ledger.intake_offsets) if ledger else {}, places))
        if running is None and ledger is not None and _is_expired(ledger):
            running = False
        return Facts(
            at=self.clock.now(),
            running=running,
            programs=programs,
            away=tuple(away),
            queues=(*(ledger.queues if ledger else ()), *(queues or ())),
            streams=ledger.streams if ledger else (),
            instances=ledger.instances if ledger else {},
            halted=ledger.halted if ledger else (),
            parked=ledger.parked if ledger else {},
            broken=self.broken(),
        )

    def _ledger(self, now: datetime) -> LedgerLook:
        from hub.health.ledger_look import LedgerLook, look

        with self.ledger() as conn:
            if conn is None:
                return LedgerLook()
            if self.rhythm is not None:
                self.rhythm.look(conn, now)
            return look(conn, now, self.intervals)

    def _log(self, intake_offsets: Mapping[int, int], places: Mapping[str, BoardPlace]) -> tuple[Queue, ...]:
        log = self.log()
        if log is None:
            return ()
        return tuple(log_queues(log, intake_offsets, places))


def _is_expired(ledger: LedgerLook) -> bool:
    return ledger.lease_expired_s is None or ledger.lease_expired_s > LEASE_GRACE_S


def _attempt(store: str, away: list[Away], look: Callable[[], T]) -> T | None:
    try:
        return look()
    except HubError as error:
        away.append(Away(store, error.code, {language: error.message(language) for language in LANGUAGES}))
        return None


def log_queues(log: LogLook, intake_offsets: Mapping[int, int], places: Mapping[str, BoardPlace]) -> Iterator[Queue]:
    """The backlog of the processor, the executor's intake and each board. Raises RetryableError while the log is unavailable."""
    folded = log.folded()  # read before the end offsets, which can only grow
    ends = log.ends(EVENTS.name)
    behind = [
        *_behind("rules", EVENTS.name, folded, ends),
        *_behind("asked", COMMANDS.name, intake_offsets, log.ends(COMMANDS.name) if intake_offsets else {}),
    ]
    backlogs = {name: _behind("boards", EVENTS.name, _all(place, ends), ends) for name, place in places.items()}
    every = [*behind, *(each for part in backlogs.values() for each in part)]
    fronts = log.fronts({each.at for each in every}) if every else {}
    yield from (each.queue(fronts) for each in behind)
    for name, place in places.items():
        yield _board(name, place, [each.queue(fronts) for each in backlogs[name]])


@dataclass(frozen=True)
class _Behind:
    """The backlog of a reader in one partition."""

    stage: Stage
    at: LogPosition
    count: int

    def queue(self, fronts: Mapping[LogPosition, Front]) -> Queue:
        front, (_, partition, offset) = fronts.get(self.at), self.at
        since, types = (front.since, front.types) if front is not None else (None, {})
        return Queue(self.stage, str(partition), self.count, since, str(offset), types)


def _behind(stage: Stage, topic: str, done: Mapping[int, int], ends: Mapping[int, int]) -> list[_Behind]:
    counted = ((partition, offset, ends.get(partition, 0) - offset) for partition, offset in sorted(done.items()))
    return [_Behind(stage, (topic, partition, offset), count) for partition, offset, count in counted if count > 0]


def _all(place: BoardPlace, ends: Mapping[int, int]) -> dict[int, int]:
    """The position of a board in every partition, including partitions that it never read."""
    return {partition: place.next_offsets.get(partition, 0) for partition in ends}


def _board(name: str, place: BoardPlace, parts: list[Queue]) -> Queue:
    """A board waits since its oldest unfolded record was recorded; without one, since its writer last confirmed it as fresh."""
    oldest = [part.oldest for part in parts if part.oldest is not None]
    if not oldest and place.fresh_at:
        oldest = [parse_time(place.fresh_at)]
    position = f"{sum(place.next_offsets.values())}/{place.fresh_at}"
    return Queue("boards", name, sum(part.count for part in parts), min(oldest, default=None), position)
