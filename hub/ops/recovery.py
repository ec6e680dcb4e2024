"""Bringing a hub back after the loss of its log, its ledger, its boards, or any two of them, while nothing of it runs.

The ledger holds every event with its sequence, the log holds every event that was sent, and boards and the processor's state are
folds of the log. So what is missing in one is taken from another; each step may be broken off and done again.

Log, ledger and boards of one hub beside each other: what each has that the others lack, and what is nowhere any more.
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
from hub.ledger.ledger import Ledger, look_at
from hub.ledger.log_match import KnownLog, Match, match
from hub.log.event_log import EventLog, LogWriter, Outgoing
from hub.log.outbox_in_log import latest_outbox, tails_at_least
from hub.log.sequences import ReadPosition, with_number
from hub.ops.backups.filling import Filling
from hub.ops.repair import folded_places
from schemas.envelope import format_time
from schemas.topics import COMMANDS, EVENTS, PARTITIONS

# As a reader from outside knows them: the hub does not import its boards. `tests/contract` holds the two together.
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
class BoardsKnow:
    """What the boards' store remembers: outbox → partition → last sequence folded, the next offsets, and its log and outbox."""

    sequences: Mapping[str, Ends] = field(default_factory=dict)
    next_offsets: Ends = field(default_factory=dict)
    noted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Survey:
    """How the three stand to each other."""

    match: Match | None
    """None: there is no ledger, or one that has sent nothing yet."""
    gone: Ends = field(default_factory=dict)
    """Partition → how many events were folded by the boards, and are neither in the log nor in the ledger."""
    boards_ahead: bool = False
    """Whether a board has read further than the log goes."""
    boards_foreign: bool = False
    """Whether the boards were folded from another hub's log."""
    is_proved: bool = False
    """Whether the boards bear out that the ledger lacks nothing."""

    def refuse(self) -> None:
        """Raise what a person must decide before the hub may start."""
        error = self.match.error() if self.match is not None else None
        if isinstance(error, FatalError):
            raise error
        if self.gone:
            raise FatalError("HUB-E2119", events=sum(self.gone.values()))


def survey(log: EventLog, ledger_url: str, boards_url: str) -> Survey:
    """Compare them. Raises RetryableError while one of them is away."""
    with look_at(ledger_url, "identity") as conn:
        known = KnownLog.of(conn) if conn is not None else None
        given = outbox.sequence_ends(conn) if conn is not None else {}
    found = match(log, known) if known is not None and given else None
    boards = boards_know(boards_url)
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


def _is_log(log: EventLog, boards: BoardsKnow) -> bool:
    return boards.noted.get("log") == log.identity(EVENTS.name)


def boards_know(url: str) -> BoardsKnow:
    """Read the boards' store; nothing where there is none, or one that cannot be read: it is made anew from the log."""
    try:
        with look_at(url, _board_identity.name) as conn:
            noted = {} if conn is None else {row.name: row.value for row in conn.execute(select(_board_identity))}
        with look_at(url, _board_positions.name) as conn:
            rows = [] if conn is None else conn.execute(select(_board_positions)).all()
    except (DBAPIError, FatalError):
        return BoardsKnow()
    sequences: dict[str, dict[int, int]] = {}
    offsets: dict[int, int] = {}
    for row in rows:
        offsets[row.partition] = max(row.next_offset, offsets.get(row.partition, 0))
        for name, last in dict(row.sequences).items():
            lasts = sequences.setdefault(name, {})
            lasts[row.partition] = max(int(last), lasts.get(row.partition, 0))
    return BoardsKnow(sequences, offsets, noted)


READER = "executor"
AT_ONCE = 2000
"""Events in one append."""
PATIENCE = 120.0

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True)
class RecoveryPlan:
    """What must be done so that log, ledger, state and boards are those of one hub again."""

    publish: int = 0
    """How many events the log lacks of what the ledger has as sent."""
    gone: Ends = field(default_factory=dict)
    """Partition → events that were folded, and that neither log nor ledger has."""
    state: bool = False
    """The processor's state is of another log, or of more than there is: it is folded anew."""
    boards: bool = False
    """So are the boards."""
    requests: bool = False
    """Requests are read from their first one again; those that are known are passed over."""
    doubt: bool = False
    """Nothing proves that the ledger knows all that was done: what is asked for by old events is looked up before it is done."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is wrong."""
        return self == RecoveryPlan()


def plan(log: EventLog, conn: Connection | None, found: Survey, *, running: bool = False) -> RecoveryPlan:
    """Judge by the survey, by how far the processor has folded, and by how far requests were read.

    While the hub is running, its relay sends a tail again that the log lacks, and nobody has read that.
    """
    folded = folded_places(log)
    ends = log.ends(EVENTS.name)  # after it: what is folded meanwhile is no more than there is
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
    """Events that the processor has folded from a log that is gone, and that the ledger does not have."""
    if name is None:
        return {}
    lasts = {partition: folded[partition].sequences.get(name, 0) for partition in ahead}
    return {p: last - given.get(p, 0) for p, last in sorted(lasts.items()) if last > given.get(p, 0)}


def _are_beyond(log: EventLog, conn: Connection) -> bool:
    """Whether requests were read to where there are none, or are no longer kept from there on."""
    read = positions.of_reader(conn, READER, COMMANDS.name)
    starts, ends = log.starts(COMMANDS.name), log.ends(COMMANDS.name)
    return any(not starts.get(p, 0) <= offset <= ends.get(p, 0) for p, offset in read.items())


def prepare(conn: Connection, log: EventLog, wanted: RecoveryPlan, now: datetime) -> None:
    """Note in the ledger what must hold before the first program starts again."""
    if wanted.requests:
        positions.restart(conn, READER, COMMANDS.name, log.starts(COMMANDS.name))
    if wanted.doubt:
        identity.note(conn, identity.DOUBT, format_time(now))
    if wanted.boards:
        identity.note_cut(conn, dict.fromkeys(range(PARTITIONS), 0))


def settle(conn: Connection, log: EventLog) -> None:
    """Note that this is the ledger's log. To be done last: until then a repair that was broken off goes on."""
    identity.note(conn, identity.LOG, log.identity(EVENTS.name))
    identity.note(conn, identity.COMMANDS_LOG, log.identity(COMMANDS.name))


def say_judged(log: EventLog, writer: LogWriter) -> None:
    """Let a log that was published anew not be taken for a new hub's, whose rules would judge it from its first event.

    A word that settles nothing: with neither state nor requests there, nobody could know that rules have judged the events.
    """
    if not any(log.ends(COMMANDS.name).values()):
        word = b'{"record":"settled","ref":"recovery","state":"done"}'
        _append(writer, [Outgoing(COMMANDS.name, b"recovery", word, 0)])


def trimmed_and_lacking(log: EventLog, conn: Connection) -> dict[int, tuple[int, int]]:
    """Partition → the last sequence in the log and the last one trimmed, where the log lacks events that the ledger has trimmed."""
    floors, name = trimmed.sequences(conn), identity.known(conn, "outbox") or ""
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
    """Send what the log lacks of the ledger's numbered events, in their order and under their sequences; how many.

    What the ledger has trimmed comes from a backup, by `filling`. Without one, raises FatalError HUB-E2122 where any of that is
    lacking, unless it was given up. Nobody else may write meanwhile. Broken off, it goes on where the log ends.
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
        say_judged(log, writer)
        for records in _all_missing(log, ledger, filling, given):
            _append(writer, records)
            done += len(records)
            progress(done, max(total, done))
    finally:
        writer.close()
    return done


def lacking_error(conn: Connection, lacking: Mapping[int, tuple[int, int]]) -> FatalError | None:
    """That log and ledger both lack events, as `trimmed_and_lacking` tells; None when they do not."""
    if not lacking:
        return None
    gone, backup = sum(floor - last for last, floor in lacking.values()), retention.last(conn)
    return FatalError("HUB-E2122", events=gone, trimmed=gone, backup=backup or "—")


def _all_missing(log: EventLog, ledger: Ledger, filling: Filling | None, given: Ends) -> Iterator[list[Outgoing]]:
    """What a backup fills first; then, from where the log ends by then, what the ledger has."""
    if filling is not None:
        yield from filling.records()
    yield from _missing(ledger.engine, ledger.outbox_id, tails_at_least(log, ledger.outbox_id, given))


def _missing(engine: Engine, name: str, above: Ends) -> Iterator[list[Outgoing]]:
    with reading(engine) as order, reading(engine) as bodies, closing(outbox.in_sequence(order)) as given:
        rows = (row for row in given if row.sequence > above.get(row.partition, 0))
        while page := list(itertools.islice(rows, AT_ONCE)):
            found = outbox.bodies(bodies, [row.id for row in page])
            yield [
                Outgoing(EVENTS.name, case.encode(), with_number(body, row.sequence, name), row.partition)
                for row in page
                for case, body in (found[row.id],)
            ]


def _append(writer: LogWriter, records: list[Outgoing]) -> None:
    try:
        writer.append(records, PATIENCE)
    except RejectedError as error:
        raise FatalError(error.code, **error.seen) from error
