"""The board store: rows of boards, the log positions that they reflect, and the writer of each board. SQLite or PostgreSQL.

The boards' database holds derived data only: it can be deleted at any time and is rebuilt from the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    event,
    inspect,
    select,
    update,
)

from hub.errors import RetryableError
from hub.kit.projection import AnyProjection, Row, Rows
from hub.ledger.database import insert_new, open_engine, reading, upsert, writing
from hub.projector.adding import add_rows
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.rows import read_rows, write_changes

PREFIX = "board_"
"""Prefix of every table of a board and of this store: the ledger may use the same database."""
UNPREFIXED_TABLES = ("owners", "positions", "tasks", "deals", "inbox", "entities")
"""Tables that earlier versions created without the prefix."""

metadata = MetaData()

owners = Table(
    f"{PREFIX}owners",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),  # "": no writer
    Column("beat", BigInteger, nullable=False),
    Column("fresh_at", Text, nullable=False),  # everything in the log at this time is folded
    Column("delay_ms", Integer, nullable=False),  # from recorded to shown, of the newest event
    Column("unreadable", BigInteger, nullable=False),
)
positions = Table(
    f"{PREFIX}positions",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("sequences", JSON, nullable=False),
    Column("as_of", Text, nullable=False),
)

histories = Table(
    f"{PREFIX}identity",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
"""The log that the boards were folded from: see `hub.projector.log_history`."""


@dataclass(frozen=True)
class Owner:
    """The writer of a board, and the board's state."""

    projection: str
    version: int
    epoch: int
    holder: str
    beat: int
    fresh_at: str
    delay_ms: int
    unreadable: int


@dataclass
class Claim:
    """The right to write a board.

    Every write advances `beat` by one from the value of this claim. So a writer detects another writer in between, and a database
    that was restored from an older copy.
    """

    epoch: int
    holder: str
    beat: int = 0


class FencedError(RetryableError):
    """Another runner writes this board now; this transaction was rolled back."""

    def __init__(self, board: str) -> None:
        super().__init__("HUB-E5103", board=board)


class BoardStore:
    """Opens no connection before its first use; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _for_boards)

    def close(self) -> None:
        """Close the connections."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A read transaction with one consistent snapshot."""
        with reading(self.engine) as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits at its end without waiting for the disk.

        A crash of the database may lose the last commits, rows, position and heartbeat together; the runner folds them again.
        """
        with writing(self.engine, "boards") as conn:
            if conn.dialect.name == "postgresql":
                # For this transaction only: a pooler may hand the connection to the ledger.
                conn.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield conn

    def prepare(self, boards: Iterable[AnyProjection] = ()) -> None:
        """Create the missing tables of the store and of these boards; several programs may call it at once."""
        with self.writing() as conn:
            lock_schema(conn)
            _add_table_prefixes(conn)
            metadata.create_all(conn)
            for board in boards:
                _make(conn, board.tables)

    def history(self) -> dict[str, str]:
        """The values that `note_history` stored last; empty before its first call."""
        with self.reading() as conn:
            return {row.name: row.value for row in conn.execute(select(histories))}

    def last_sequences(self, outbox: str) -> dict[int, int]:
        """Partition → the last sequence of an outbox that any board has folded."""
        found: dict[int, int] = {}
        with self.reading() as conn:
            for row in conn.execute(select(positions.c.partition, positions.c.sequences)):
                found[row.partition] = max(found.get(row.partition, 0), int(row.sequences.get(outbox, 0)))
        return found

    def note_history(self, values: Mapping[str, str]) -> None:
        """Store the identity of the log that the boards are folded from."""
        with self.writing() as conn:
            _note_history(conn, values)

    def reset(self, boards: Iterable[AnyProjection], values: Mapping[str, str]) -> None:
        """Empty these boards and store the identity of the log that they are folded from next; their current writers are fenced."""
        with self.writing() as conn:
            lock_schema(conn)
            for board in boards:
                forget(conn, board.name)
                for table in board.tables:
                    table.drop(conn, checkfirst=True)
                    table.create(conn)
            conn.execute(delete(histories))
            _note_history(conn, values)

    def owner(self, name: str) -> Owner | None:
        """The owner row of a board; None before its first claim."""
        with self.reading() as conn:
            return read_owner(conn, name)

    def owners(self) -> dict[str, Owner]:
        """Board name → owner row."""
        with self.reading() as conn:
            return {row["projection"]: Owner(**row) for row in conn.execute(select(owners)).mappings()}

    def places(self, name: str) -> dict[int, FoldPosition]:
        """Partition → how far the board has folded it."""
        with self.reading() as conn:
            return read_places(conn, name)

    def rows(self, table: Table, keys: Iterable[str]) -> dict[str, Row]:
        """Key → row, for these keys; a row does not contain its key."""
        with self.reading() as conn:
            return dict(read_rows(conn, table, keys))

    def claim(self, board: AnyProjection, holder: str, expected: Owner | None) -> Claim | None:
        """Become the writer of a board whose epoch is still that of `expected` (None: no row); None if another was faster."""
        with self.writing() as conn:
            lock_schema(conn)
            if expected is None:
                _make(conn, board.tables)
                identity = {"version": board.version, "epoch": 1, "holder": holder, "beat": 0}
                state = {"fresh_at": "", "delay_ms": 0, "unreadable": 0}
                inserted = insert_new(conn, owners, {"projection": board.name, **identity, **state}, "projection")
                return Claim(1, holder) if inserted else None
            mine = (owners.c.projection == board.name, owners.c.epoch == expected.epoch)
            updated = conn.execute(update(owners).where(*mine).values(epoch=expected.epoch + 1, holder=holder, beat=0))
            return Claim(expected.epoch + 1, holder) if updated.rowcount == 1 else None

    def release(self, name: str, claim: Claim) -> None:
        """Give up the board so that a standby claims it at once; no effect when another runner has claimed it already."""
        mine = (owners.c.projection == name, owners.c.epoch == claim.epoch, owners.c.holder == claim.holder)
        with self.writing() as conn:
            conn.execute(update(owners).where(*mine).values(holder=""))

    def beat(self, name: str, claim: Claim, fresh_at: str | None) -> None:
        """Write a heartbeat and, if given, the time `fresh_at` of the log state that the board reflects. Raises FencedError."""
        values = {"fresh_at": fresh_at} if fresh_at else {}
        with self.writing() as conn:
            fence(conn, name, claim, **values)
        claim.beat += 1

    def commit(self, name: str, claim: Claim, batch: Batch) -> None:
        """Write a batch and its positions in one transaction. Raises FencedError, having written nothing."""
        with self.writing() as conn:
            fence(conn, name, claim, delay_ms=batch.delay_ms, unreadable=owners.c.unreadable + batch.unreadable)
            for table, changes in batch.changes.items():
                write_changes(conn, table, changes)
            for table, rows in batch.added.items():
                add_rows(conn, table, rows)
            write_places(conn, name, batch.places)
        claim.beat += 1


def _for_boards(connection: sqlite3.Connection, _record: object) -> None:
    """Flush at checkpoints, not at commits: a power cut may lose the last commits, rows and positions together."""
    for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=8000", "cache_size=-64000"):
        connection.execute(f"PRAGMA {pragma}")


@dataclass(frozen=True)
class Batch:
    """The content of one commit."""

    places: Mapping[int, FoldPosition]
    """Positions of the partitions that moved."""
    changes: Mapping[Table, Mapping[str, RowChange]] = field(default_factory=dict)
    added: Mapping[Table, Rows] = field(default_factory=dict)
    delay_ms: int = 0
    unreadable: int = 0


def fence(conn: Connection, name: str, claim: Claim, **values: Any) -> None:
    """Advance `beat`, or raise FencedError. The owner row stays locked until the commit, so no takeover happens in between."""
    mine = (owners.c.epoch == claim.epoch, owners.c.holder == claim.holder, owners.c.beat == claim.beat)
    advanced = update(owners).where(owners.c.projection == name, *mine).values(beat=claim.beat + 1, **values)
    if conn.execute(advanced).rowcount != 1:
        raise FencedError(name)


def _make(conn: Connection, tables: Iterable[Table]) -> None:
    for table in tables:
        table.create(conn, checkfirst=True)


def lock_schema(conn: Connection) -> None:
    """Serialize schema changes of programs that start together; SQLite's transactions already are serial."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(4207849485)")


def _add_table_prefixes(conn: Connection) -> None:
    """Add the prefix to the tables of a store of an earlier version; tables of other programs stay as they are."""
    columns_of = {name: {str(c["name"]) for c in inspect(conn).get_columns(name)} for name in _unprefixed_tables(conn)}
    if not {"projection", "epoch"} <= columns_of.get("owners", set()):
        return
    for name, columns in columns_of.items():
        conn.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}__shadow"')
        if name != "positions" or "projection" in columns:  # else it is the ledger's table
            conn.exec_driver_sql(f'ALTER TABLE "{name}" RENAME TO "{PREFIX}{name}"')


def _unprefixed_tables(conn: Connection) -> list[str]:
    existing = set(inspect(conn).get_table_names())
    return [name for name in UNPREFIXED_TABLES if name in existing and f"{PREFIX}{name}" not in existing]


def read_owner(conn: Connection, name: str) -> Owner | None:
    """The owner row of a board, in the caller's transaction."""
    row = conn.execute(select(owners).where(owners.c.projection == name)).mappings().first()
    return Owner(**row) if row else None


def read_places(conn: Connection, name: str) -> dict[int, FoldPosition]:
    """Partition → how far the board has folded it, in the caller's transaction."""
    found = conn.execute(select(positions).where(positions.c.projection == name))
    return {row.partition: FoldPosition(row.next_offset, row.sequences, row.as_of) for row in found}


def write_places(conn: Connection, name: str, places: Mapping[int, FoldPosition]) -> None:
    """Upsert positions of a board."""
    rows = [
        {
            "projection": name,
            "partition": partition,
            "next_offset": place.next_offset,
            "sequences": dict(place.sequences),
            "as_of": place.as_of,
        }
        for partition, place in sorted(places.items())
    ]
    upsert(conn, positions, rows, "projection", "partition")


def _note_history(conn: Connection, values: Mapping[str, str]) -> None:
    upsert(conn, histories, [{"name": name, "value": value} for name, value in sorted(values.items())], "name")


def forget(conn: Connection, name: str) -> None:
    """Delete a board's positions and owner row; its tables remain."""
    conn.execute(delete(positions).where(positions.c.projection == name))
    conn.execute(delete(owners).where(owners.c.projection == name))
