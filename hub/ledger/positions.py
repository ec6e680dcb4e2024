"""Consumer positions in the log, fenced by epochs: claiming a partition shuts out its former owner.

Also reads which partitions the processor has halted before a sequence gap, from the events that it recorded about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Integer, Table, Text, select, update

from hub.errors import FatalError
from hub.ledger.database import insert_new, metadata, with_rows
from hub.ledger.outbox import outbox
from hub.log.sequence_gaps import HALTED, subject_of
from schemas.envelope import Event
from schemas.topics import PARTITIONS

positions = Table(
    "positions",
    metadata,
    Column("reader", Text, primary_key=True),
    Column("topic", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Position:
    """A reader's next offset in one partition, and the epoch under which it may advance."""

    reader: str
    topic: str
    partition: int
    next_offset: int
    epoch: int


_ADVANCED = (
    *(positions.c[name] for name in ("reader", "topic", "partition", "next_offset", "epoch")),
    positions.c.next_offset,
)
_ADVANCE = """
    WITH given (reader, topic, partition, next_offset, epoch, moved) AS ({given})
    UPDATE positions SET next_offset = given.moved FROM given
    WHERE positions.reader = given.reader AND positions.topic = given.topic AND positions.partition = given.partition
        AND positions.next_offset = given.next_offset AND positions.epoch = given.epoch
    RETURNING positions.partition
"""


def claim(conn: Connection, reader: str, topic: str, partition: int) -> Position:
    """Take over a partition; its former owner can no longer `advance` it."""
    begin(conn, reader, topic, {partition: 0})
    mine = _at(reader, topic, partition)
    conn.execute(update(positions).where(*mine).values(epoch=positions.c.epoch + 1))
    row = conn.execute(select(positions.c.next_offset, positions.c.epoch).where(*mine)).one()
    return Position(reader, topic, partition, row.next_offset, row.epoch)


def begin(conn: Connection, reader: str, topic: str, starts: Mapping[int, int]) -> None:
    """Set the starting offsets (partition → next offset) of a reader that has no position yet."""
    for partition, start in starts.items():
        first = {"reader": reader, "topic": topic, "partition": partition, "next_offset": start, "epoch": 0}
        insert_new(conn, positions, first, "reader", "topic", "partition")


def restart(conn: Connection, reader: str, topic: str, starts: Mapping[int, int]) -> None:
    """Reset a reader to these offsets; the present owner of a partition can no longer `advance` it."""
    for partition, start in starts.items():
        held = claim(conn, reader, topic, partition)
        conn.execute(update(positions).where(*_at(reader, topic, held.partition)).values(next_offset=start))


def advance(conn: Connection, held: Mapping[int, Position], ends: Mapping[int, int]) -> dict[int, Position]:
    """Advance partitions of one topic (partition → next offset), in the transaction that stores the results of what was read.

    Returns all positions as held afterwards; raises FatalError when one of them is no longer as in `held` (fenced).
    """
    rows = [(*astuple(held[partition]), end) for partition, end in ends.items()]
    moved = set(with_rows(conn, _ADVANCE, _ADVANCED, rows).scalars()) if rows else set()
    for partition in ends.keys() - moved:
        raise _fenced(held[partition])
    return {p: replace(position, next_offset=ends.get(p, position.next_offset)) for p, position in held.items()}


def _fenced(held: Position) -> FatalError:
    return FatalError("HUB-E5004", reader=held.reader, topic=held.topic, partition=held.partition)


def _at(reader: str, topic: str, partition: int) -> tuple[ColumnElement[bool], ...]:
    return (positions.c.reader == reader, positions.c.topic == topic, positions.c.partition == partition)


def of_reader(conn: Connection, reader: str, topic: str) -> dict[int, int]:
    """Partition → next offset."""
    found = select(positions.c.partition, positions.c.next_offset).where(
        positions.c.reader == reader, positions.c.topic == topic
    )
    return {key: value for key, value in conn.execute(found)}


def halted(conn: Connection) -> list[dict[str, Any]]:
    """The data of each halt that is not repaired yet, by partition."""
    subjects = [subject_of(partition) for partition in range(PARTITIONS)]
    rows = conn.execute(select(outbox.c.body).where(outbox.c.subject.in_(subjects)).order_by(outbox.c.id))
    open_: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        event = Event.from_json(row.body)
        place = (int(event.data["partition"]), int(event.data["offset"]))
        if event.type == HALTED:
            open_[place] = event.data
        else:
            open_.pop(place, None)
    return [open_[place] for place in sorted(open_)]
