"""Recovers a hub that has lost its log, its ledger, its boards, or any two of them, while none of its programs runs.

The ledger holds every event with its sequence, the log holds every published event, and the boards and the processor's state are
folds of the log. `survey` compares the three: what one lacks is restored from another, and events that none of them has are
counted as gone. Every step may be interrupted and repeated.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import JSON, BigInteger, Column, Connection, Engine, Integer, MetaData, Table, Text, select
from sqlalchemy.exc import DBAPIError

from hub.errors import FatalError, RejectedError
from hub.ledger import identity, outbox, positions, retention, trimmed
from hub.ledger.database import reading
from hub.ledger.ledger import Ledger, read_snapshot
from hub.ledger.log_match import KnownLog, Match, match
from hub.log.event_log import EventLog, LogWriter, Outgoing
from hub.log.outbox_in_log import latest_outbox, tails_at_least
from hub.log.sequences import ReadPosition, with_sequence
from hub.ops.backups.filling import Filling
from hub.ops.repair import folded_places
from schemas.envelope import format_time
from schemas.topics import COMMANDS, EVENTS, PARTITIONS

# Declared here, as the hub imports none of its boards' code. `tests/contract` checks that the declarations agree.
_board_positions = Table(
    "board_positions",
    MetaData(),
    Column("projection", Text),
    Column("partition", Integer),
    Column("next_offset", BigInteger),
    Column("sequences", JSON),
)
_board_identity = Table("board_identity", MetaData(), Column("name", Text), Column("value", Text))

Ends = Mapping[int, int]
"""Partition → a sequence, or an offset."""


@dataclass(frozen=True)
class BoardPositions:
    """The positions in the boards' store: outbox → partition → last sequence folded, the next offsets, and its log and outbox."""

    sequences: Mapping[str, Ends] = field(default_factory=dict)
    next_offsets: Ends = field(default_factory=dict)
    noted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """The result of comparing log, ledger and boards."""

    match: Match | None
    """None when there is no ledger, or one that has published nothing yet."""
    gone: Ends = field(default_factory=dict)
    """Partition → how many events the boards have folded that are neither in the log nor in the ledger."""
    boards_ahead: bool = False
    """Whether a board's position is beyond the end of the log."""
    boards_foreign: bool = False
    """Whether the boards were folded from another hub's log."""
    is_proved: bool = False
    """Whether the boards' positions prove that the ledger lacks nothing."""

    def refuse(self) -> None:
        """Raise FatalError for a difference that a person must decide about before the hub may start."""
        error = self.match.error() if self.match is not None else None
        if isinstance(error, FatalError):
            raise error
        if self.gone:
            raise FatalError("HUB-E2119", events=sum(self.gone.values()))


def survey(log: EventLog, ledger_url: str, boards_url: str) -> Survey:
    """Compare log, ledger and boards. Raises RetryableError while one of them is unreachable."""
    with read_snapshot(ledger_url, "identity") as conn:
        known = KnownLog.of(conn) if conn is not None else None
        given = outbox.sequence_ends(conn) if conn is not None else {}
    found = match(log, known) if known is not None and given else None
    boards = read_board_positions(boards_url)
    name = known.outbox if known is not None and given else latest_outbox(log)
    foreign = name is not None and boards.noted.get("outbox") not in (None, name) and not _is_log(log, boards)
    remembered = {} if foreign else boards.sequences.get(name or boards.noted.get("outbox", ""), {})
    there = tails_at_least(log, name, remembered) if name is not None else {}
    missing = {p: last - max(there.get(p, 0), given.get(p, 0)) for p, last in remembered.items()}
    ends = log.ends(EVENTS.name)
    return Survey(
        found,
        {partition: count for partition, count in sorted(missing.items()) if count > 0},
        boards_ahead=any(offset > ends.get(partition, 0) for partition, offset in boards.next_offsets.items()),
        boards_foreign=foreign,
        is_proved=bool(remembered) and not any(count > 0 for count in missing.values()),
    )


def _is_log(log: EventLog, boards: BoardPositions) -> bool:
    return boards.noted.get("log") == log.identity(EVENTS.name)


def read_board_positions(url: str) -> BoardPositions:
    """Read the boards' store; empty when there is none, or it cannot be read: the boards are then rebuilt from the log."""
    try:
        with read_snapshot(url, _board_identity.name) as conn:
            noted = {} if conn is None else {row.name: row.value for row in conn.execute(select(_board_identity))}
        with read_snapshot(url, _board_positions.name) as conn:
            rows = [] if conn is None else conn.execute(select(_board_positions)).all()
    except (DBAPIError, FatalError):
        return BoardPositions()
    sequences: dict[str, dict[int, int]] = {}
    offsets: dict[int, int] = {}
    for row in rows:
        offsets[row.partition] = max(row.next_offset, offsets.get(row.partition, 0))
        for name, last in dict(row.sequences).items():
            lasts = sequences.setdefault(name, {})
            lasts[row.partition] = max(int(last), lasts.get(row.partition, 0))
    return BoardPositions(sequences, offsets, noted)


READER = "executor"
MAX_BATCH = 2000
"""Events in one append."""
APPEND_TIMEOUT_S = 120.0

Progress = Callable[[int, int], None]
"""Called with the number of records done, and the total."""


@dataclass(frozen=True)
class RecoveryPlan:
    """The steps after which log, ledger, state and boards belong to one hub again."""

    publish: int = 0
    """How many events the log lacks that the ledger has as published."""
    gone: Ends = field(default_factory=dict)
    """Partition → how many folded events neither log nor ledger has."""
    state: bool = False
    """Rebuild the processor's state: it is of another log, or reaches beyond the end of this one."""
    boards: bool = False
    """Rebuild the boards, for the same reason."""
    requests: bool = False
    """Read the requests again from the first; known ones are skipped."""
    doubt: bool = False
    """The ledger may lack commands that were carried out: look up the effect before executing a request of an old event."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wrong."""
        return self == RecoveryPlan()


def plan(log: EventLog, conn: Connection | None, found: Survey, *, running: bool = False) -> RecoveryPlan:
    """Plan from the survey, the processor's read positions, and the executor's position in the requests.

    While the hub is `running`, its relay publishes a missing tail again, and no reader has passed it yet.
    """
    folded = folded_places(log)
    ends = log.ends(EVENTS.name)  # read second: the processor may fold on, but never beyond the end
    kind = found.match.kind if found.match is not None else "same"
    given = outbox.sequence_ends(conn) if conn is not None else {}
    name = found.match.outbox if found.match is not None else None
    ahead = {p for p, place in folded.items() if place.next_offset > ends.get(p, 0)}
    gone = {**_folded_and_gone(folded, name, given, ahead), **found.gone}
    is_cut = kind == "lost" or (kind == "behind" and not running)
    return RecoveryPlan(
        publish=found.match.missing if found.match is not None and is_cut else 0,
        gone=gone,
        state=bool(ahead) or (kind == "lost" and bool(folded)),
        boards=is_cut or found.boards_ahead or found.boards_foreign or bool(gone),
        requests=is_cut or (conn is not None and _are_beyond(log, conn)),
        doubt=bool(gone) or (kind == "lost" and not found.is_proved),
    )


def _folded_and_gone(
    folded: Mapping[int, ReadPosition], name: str | None, given: Ends, ahead: set[int]
) -> dict[int, int]:
    """Partition → how many events the processor has folded from a lost log that the ledger does not have."""
    if name is None:
        return {}
    lasts = {partition: folded[partition].sequences.get(name, 0) for partition in ahead}
    return {p: last - given.get(p, 0) for p, last in sorted(lasts.items()) if last > given.get(p, 0)}


def _are_beyond(log: EventLog, conn: Connection) -> bool:
    """Whether the executor's position is beyond the end of the requests, or before their first retained offset."""
    read = positions.of_reader(conn, READER, COMMANDS.name)
    starts, ends = log.starts(COMMANDS.name), log.ends(COMMANDS.name)
    return any(not starts.get(p, 0) <= offset <= ends.get(p, 0) for p, offset in read.items())


def prepare(conn: Connection, log: EventLog, wanted: RecoveryPlan, now: datetime) -> None:
    """Write to the ledger what must hold before the first program starts again."""
    if wanted.requests:
        positions.restart(conn, READER, COMMANDS.name, log.starts(COMMANDS.name))
    if wanted.doubt:
        identity.set_value(conn, identity.DOUBT, format_time(now))
    if wanted.boards:
        identity.note_cut(conn, dict.fromkeys(range(PARTITIONS), 0))


def adopt_log(conn: Connection, log: EventLog) -> None:
    """Record this log as the ledger's own. Call it last: until then an interrupted recovery resumes."""
    identity.set_value(conn, identity.LOG, log.identity(EVENTS.name))
    identity.set_value(conn, identity.COMMANDS_LOG, log.identity(COMMANDS.name))


def mark_log_as_judged(log: EventLog, writer: LogWriter) -> None:
    """Mark a republished log as one whose events rules have handled already, so that the hub does not count as new.

    With neither state nor requests there, a new hub's rules would handle the log from its first event. The record has no other
    effect.
    """
    if not any(log.ends(COMMANDS.name).values()):
        record = b'{"record":"settled","ref":"recovery","state":"done"}'
        _append(writer, [Outgoing(COMMANDS.name, b"recovery", record, 0)])


def trimmed_and_lacking(log: EventLog, conn: Connection) -> dict[int, tuple[int, int]]:
    """Partition → the last sequence in the log and the last one trimmed, where the log lacks events that the ledger has trimmed."""
    floors, name = trimmed.sequences(conn), identity.get_value(conn, "outbox") or ""
    there = tails_at_least(log, name, floors) if floors else {}
    return {p: (there.get(p, 0), floor) for p, floor in sorted(floors.items()) if there.get(p, 0) < floor}


def publish(
    log: EventLog,
    ledger: Ledger,
    progress: Progress = lambda done, total: None,
    filling: Filling | None = None,
    *,
    give_up: bool = False,
) -> int:
    """Publish the ledger's sequenced events that the log lacks, in order and under their sequences; returns their number.

    Events that the ledger has trimmed come from a backup, by `filling`. Without one, raises FatalError HUB-E2122 when any of them
    is missing, unless `give_up`. No other program may write to the log at the same time. After an interruption it resumes at
    the log's end.
    """
    with ledger.reading() as conn:
        given = outbox.sequence_ends(conn)
        lacking = {} if give_up or filling is not None else trimmed_and_lacking(log, conn)
        error = lacking_error(conn, lacking)
    if error is not None:
        raise error
    above = tails_at_least(log, ledger.outbox_id, given)
    total = sum(max(0, last - above.get(partition, 0)) for partition, last in given.items())
    if not total:
        return 0
    writer, done = log.writer(), 0
    try:
        mark_log_as_judged(log, writer)
        for records in _all_missing(log, ledger, filling, given):
            _append(writer, records)
            done += len(records)
            progress(done, max(total, done))
    finally:
        writer.close()
    return done


def lacking_error(conn: Connection, lacking: Mapping[int, tuple[int, int]]) -> FatalError | None:
    """The error that log and ledger both lack events, from `trimmed_and_lacking`; None when they do not."""
    if not lacking:
        return None
    gone, backup = sum(floor - last for last, floor in lacking.values()), retention.last_backup(conn)
    return FatalError("HUB-E2122", events=gone, trimmed=gone, backup=backup or "—")


def _all_missing(log: EventLog, ledger: Ledger, filling: Filling | None, given: Ends) -> Iterator[list[Outgoing]]:
    """First the records of the backup; then, from the end that the log has by then, the events of the ledger."""
    if filling is not None:
        yield from filling.records()
    yield from _missing(ledger.engine, ledger.outbox_id, tails_at_least(log, ledger.outbox_id, given))


def _missing(engine: Engine, name: str, above: Ends) -> Iterator[list[Outgoing]]:
    with reading(engine) as order, reading(engine) as bodies, closing(outbox.in_sequence(order)) as given:
        rows = (row for row in given if row.sequence > above.get(row.partition, 0))
        while page := list(itertools.islice(rows, MAX_BATCH)):
            found = outbox.bodies(bodies, [row.id for row in page])
            yield [
                Outgoing(EVENTS.name, case.encode(), with_sequence(body, row.sequence, name), row.partition)
                for row in page
                for case, body in (found[row.id],)
            ]


def _append(writer: LogWriter, records: list[Outgoing]) -> None:
    try:
        writer.append(records, APPEND_TIMEOUT_S)
    except RejectedError as error:
        raise FatalError(error.code, **error.seen) from error
