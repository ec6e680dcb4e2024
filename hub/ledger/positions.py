"""How far each reader of the log is, under an epoch: who claims a partition later shuts out who had it before."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, ColumnElement, Connection, Integer, Table, Text, select, update

from hub.errors import FatalError
from hub.ledger.dialect import insert_new
from hub.ledger.metadata import metadata

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
    """Where one reader is in one partition, and under which epoch it may move on."""

    reader: str
    topic: str
    partition: int
    next_offset: int
    epoch: int


def claim(conn: Connection, reader: str, topic: str, partition: int) -> Position:
    """Take a partition over: whoever held it cannot `advance` it any more."""
    first = {"reader": reader, "topic": topic, "partition": partition, "next_offset": 0, "epoch": 0}
    insert_new(conn, positions, first, "reader", "topic", "partition")
    mine = _at(reader, topic, partition)
    conn.execute(update(positions).where(*mine).values(epoch=positions.c.epoch + 1))
    row = conn.execute(select(positions.c.next_offset, positions.c.epoch).where(*mine)).one()
    return Position(reader, topic, partition, row.next_offset, row.epoch)


def advance(conn: Connection, held: Position, next_offset: int) -> Position:
    """Move on, in the transaction that holds what was read; raises FatalError when it is no longer as it was `held`."""
    where = (*_at(held.reader, held.topic, held.partition), positions.c.epoch == held.epoch)
    moved = conn.execute(
        update(positions).where(*where, positions.c.next_offset == held.next_offset).values(next_offset=next_offset)
    )
    if moved.rowcount != 1:
        raise FatalError("HUB-E5004", reader=held.reader, topic=held.topic, partition=held.partition)
    return Position(held.reader, held.topic, held.partition, next_offset, held.epoch)


def _at(reader: str, topic: str, partition: int) -> tuple[ColumnElement[bool], ...]:
    return (positions.c.reader == reader, positions.c.topic == topic, positions.c.partition == partition)


def of_reader(conn: Connection, reader: str, topic: str) -> dict[int, int]:
    """Partition → next offset."""
    found = select(positions.c.partition, positions.c.next_offset).where(
        positions.c.reader == reader, positions.c.topic == topic
    )
    return {key: value for key, value in conn.execute(found)}
