"""Keys of trimmed events, which detect duplicates after the outbox row is deleted, and the floor of each partition's trimming.

A row is deleted once the log verifiably has the event (`hub.ledger.trimming`). Below a partition's floor the ledger lacks rows by
design.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    Text,
    delete,
    inspect,
    select,
    update,
)

from hub.ledger.database import metadata, upsert

trimmed = Table(
    "trimmed",
    metadata,
    Column("id_hash", LargeBinary, primary_key=True),
    Column(
        "content", LargeBinary
    ),  # digest of an outside event's content; NULL for the hub's own events, which repeat unchanged
    Column("people", LargeBinary),  # digest of the content without the people named in it; NULL where none are
    sqlite_with_rowid=False,
)

floors = Table(
    "floors",
    metadata,
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("log", Text, nullable=False),
    Column("stuck", BigInteger),
)

_MANY = 500
"""Keys in one query."""


@dataclass(frozen=True)
class Floor:
    """How far a partition is trimmed: up to `sequence`, which was read before offset `next_offset` of `log`.

    `events`: how many trimmed events have a key; retained rows are not among them. `stuck`: the next sequence with a row in the
    outbox, where the log lacks the event or has other bytes.
    """

    partition: int
    sequence: int = 0
    events: int = 0
    next_offset: int = 0
    log: str = ""
    stuck: int | None = None


def id_hash(event_id: str) -> bytes:
    """The key of an event: 128 bits, so that collisions are practically impossible."""
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def is_trimmed(conn: Connection, event_id: str) -> bool:
    """Whether an event was recorded and its row is trimmed."""
    return conn.execute(select(trimmed.c.id_hash).where(trimmed.c.id_hash == id_hash(event_id))).first() is not None


def contents(conn: Connection, event_ids: Sequence[str]) -> dict[str, tuple[bytes, bytes | None]]:
    """Event id → `content` and `people` digests, for trimmed events from outside."""
    found: dict[str, tuple[bytes, bytes | None]] = {}
    for start in range(0, len(event_ids), _MANY):
        hashes = {id_hash(id_): id_ for id_ in event_ids[start : start + _MANY]}
        rows = select(trimmed).where(trimmed.c.id_hash.in_(hashes), trimmed.c.content.is_not(None))
        found |= {hashes[bytes(row.id_hash)]: (row.content, row.people) for row in conn.execute(rows)}
    return found


def forget(conn: Connection, rows: Iterable[tuple[int, str]]) -> None:
    """Delete the keys of events whose rows are restored: partition and event id of each."""
    if conn.execute(select(trimmed.c.id_hash).limit(1)).first() is None:
        return
    for partition, group in itertools.groupby(sorted(rows), key=lambda row: row[0]):
        hashes = [id_hash(event_id) for _, event_id in group]
        gone = conn.execute(delete(trimmed).where(trimmed.c.id_hash.in_(hashes))).rowcount
        conn.execute(update(floors).where(floors.c.partition == partition).values(events=floors.c.events - gone))


def count(conn: Connection) -> int:
    """The number of trimmed events."""
    return sum(floor.events for floor in floors_of(conn).values())


def all_hashes(conn: Connection) -> Iterator[bytes]:
    """The key of every trimmed event, in key order."""
    if _has_tables(conn):
        rows = conn.execution_options(yield_per=10_000).execute(select(trimmed.c.id_hash).order_by(trimmed.c.id_hash))
        yield from map(bytes, rows.scalars())


def floors_of(conn: Connection) -> Mapping[int, Floor]:
    """Partition → its floor, for partitions that were ever trimmed."""
    return {row.partition: Floor(*row) for row in conn.execute(select(floors))} if _has_tables(conn) else {}


def floor_of(conn: Connection, partition: int) -> Floor:
    """The floor of one partition."""
    row = conn.execute(select(floors).where(floors.c.partition == partition)).first()
    return Floor(partition) if row is None else Floor(*row)


def sequences(conn: Connection) -> dict[int, int]:
    """Partition → the last trimmed sequence."""
    return {partition: floor.sequence for partition, floor in floors_of(conn).items() if floor.sequence}


def move(conn: Connection, floor: Floor) -> None:
    """Store a partition's floor."""
    upsert(conn, floors, [{**vars(floor)}], "partition")


def _has_tables(conn: Connection) -> bool:
    """Whether the tables exist; a ledger that is only read may be of an older hub."""
    return inspect(conn).has_table(floors.name)
