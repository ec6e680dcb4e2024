"""Log, ledger and boards of one hub beside each other: what each has that the others lack, and what is nowhere any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import JSON, BigInteger, Column, Integer, MetaData, Table, Text, select
from sqlalchemy.exc import DBAPIError

from hub.errors import FatalError
from hub.event_log import EventLog
from hub.ledger import outbox
from hub.ledger.looking import look_at
from hub.log_match import Known, Match, match
from hub.outbox_in_log import latest_outbox, tails_at_least
from schemas.topics import EVENTS

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
        known = Known.of(conn) if conn is not None else None
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
