"""Where boards lie: their rows, the log position these reflect, and who is writing them. SQLite or PostgreSQL, one code path.

The boards' database is its own: it can be deleted at any time, and the log gives it back.
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
from hub.ledger.database import insert_new, open_engine, put, reading, writing
from hub.projector.adding import add_rows
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.rows import read_rows, write_changes

PREFIX = "board_"
"""Every table of a board, and of this store, is called so: the ledger may lie in the same database."""
FORMER = ("owners", "positions", "tasks", "deals", "inbox", "entities")
"""Tables that had no prefix once."""

metadata = MetaData()

owners = Table(
    f"{PREFIX}owners",
    metadata,
    Column("projection", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),  # "": nobody
    Column("beat", BigInteger, nullable=False),
    Column("fresh_at", Text, nullable=False),  # all that was in the log at this moment is folded
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
"""Which log the boards were folded from: see `hub.projector.log_history`."""


@dataclass(frozen=True)
class Owner:
    """Who writes a board, and how it stands."""

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

    Every write goes from its beat to the next one. So the writer notices another in between, and a database that has gone on
    from an older copy: there the board is not as this writer left it.
    """

    epoch: int
    holder: str
    beat: int = 0


class FencedError(RetryableError):
    """Somebody else writes this board now; nothing of this transaction was kept."""

    def __init__(self, board: str) -> None:
        super().__init__("HUB-E5103", board=board)


class BoardStore:
    """Opens nothing until it is used; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = open_engine(url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", _for_boards)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look."""
        with reading(self.engine) as conn:
            if conn.dialect.name == "postgresql":
                conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that commits at its end, and does not wait for the disk.

        After a crash of the database a board is a little older, its rows, its position and its writer's beat alike, and the
        log brings the rest again.
        """
        with writing(self.engine, "boards") as conn:
            if conn.dialect.name == "postgresql":
                # Of this transaction only: a pooler may hand the connection on to the ledger.
                conn.exec_driver_sql("SET LOCAL synchronous_commit = off")
            yield conn

    def prepare(self, boards: Iterable[AnyProjection] = ()) -> None:
        """Make the store's own tables, and these boards', where they are missing; several programs may call it at once."""
        with self.writing() as conn:
            lock_schema(conn)
            _rename_former(conn)
            metadata.create_all(conn)
            for board in boards:
                _make(conn, board.tables)

    def history(self) -> dict[str, str]:
        """What `note_history` has noted last; empty when it never did."""
        with self.reading() as conn:
            return {row.name: row.value for row in conn.execute(select(histories))}

    def lasts(self, outbox: str) -> dict[int, int]:
        """Partition → the last sequence of an outbox that any board has folded."""
        found: dict[int, int] = {}
        with self.reading() as conn:
            for row in conn.execute(select(positions.c.partition, positions.c.sequences)):
                found[row.partition] = max(found.get(row.partition, 0), int(row.sequences.get(outbox, 0)))
        return found

    def note_history(self, told: Mapping[str, str]) -> None:
        """Note which log the boards are folded from."""
        with self.writing() as conn:
            _note_history(conn, told)

    def begin_anew(self, boards: Iterable[AnyProjection], told: Mapping[str, str]) -> None:
        """Empty these boards, and note the log that they are folded from then; who writes them now is shut out."""
        with self.writing() as conn:
            lock_schema(conn)
            for board in boards:
                forget(conn, board.name)
                for table in board.tables:
                    table.drop(conn, checkfirst=True)
                    table.create(conn)
            conn.execute(delete(histories))
            _note_history(conn, told)

    def owner(self, name: str) -> Owner | None:
        """How a board stands; None before its first start."""
        with self.reading() as conn:
            return read_owner(conn, name)

    def owners(self) -> dict[str, Owner]:
        """Every board by name."""
        with self.reading() as conn:
            return {row["projection"]: Owner(**row) for row in conn.execute(select(owners)).mappings()}

    def places(self, name: str) -> dict[int, FoldPosition]:
        """Partition → how far it is folded."""
        with self.reading() as conn:
            return read_places(conn, name)

    def rows(self, table: Table, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of these keys, without them in it."""
        with self.reading() as conn:
            return dict(read_rows(conn, table, keys))

    def claim(self, board: AnyProjection, holder: str, seen: Owner | None) -> Claim | None:
        """Become the writer of a board, if it still stands as it was `seen`; None when somebody was faster."""
        with self.writing() as conn:
            lock_schema(conn)
            if seen is None:
                _make(conn, board.tables)
                first = {"version": board.version, "epoch": 1, "holder": holder, "beat": 0}
                rest = {"fresh_at": "", "delay_ms": 0, "unreadable": 0}
                made = insert_new(conn, owners, {"projection": board.name, **first, **rest}, "projection")
                return Claim(1, holder) if made else None
            mine = (owners.c.projection == board.name, owners.c.epoch == seen.epoch)
            taken = conn.execute(update(owners).where(*mine).values(epoch=seen.epoch + 1, holder=holder, beat=0))
            return Claim(seen.epoch + 1, holder) if taken.rowcount == 1 else None

    def release(self, name: str, claim: Claim) -> None:
        """Let others write the board at once; nothing happens when somebody already does."""
        mine = (owners.c.projection == name, owners.c.epoch == claim.epoch, owners.c.holder == claim.holder)
        with self.writing() as conn:
            conn.execute(update(owners).where(*mine).values(holder=""))

    def beat(self, name: str, claim: Claim, fresh_at: str | None) -> None:
        """Say that the writer lives, and that the board reflects all there was at `fresh_at`; raises FencedError."""
        told = {"fresh_at": fresh_at} if fresh_at else {}
        with self.writing() as conn:
            hold(conn, name, claim, **told)
        claim.beat += 1

    def commit(self, name: str, claim: Claim, batch: Batch) -> None:
        """Write what a batch brings and where it ends, in one transaction; raises FencedError, and then has written nothing."""
        with self.writing() as conn:
            hold(conn, name, claim, delay_ms=batch.delay_ms, unreadable=owners.c.unreadable + batch.unreadable)
            for table, changes in batch.changes.items():
                write_changes(conn, table, changes)
            for table, rows in batch.added.items():
                add_rows(conn, table, rows)
            write_places(conn, name, batch.places)
        claim.beat += 1


def _for_boards(connection: sqlite3.Connection, _record: object) -> None:
    """Flush with each checkpoint, not each commit: after a power cut a board is a little older, rows and position alike."""
    for pragma in ("synchronous=NORMAL", "wal_autocheckpoint=8000", "cache_size=-64000"):
        connection.execute(f"PRAGMA {pragma}")


@dataclass(frozen=True)
class Batch:
    """What one commit brings."""

    places: Mapping[int, FoldPosition]
    """Only those that moved."""
    changes: Mapping[Table, Mapping[str, RowChange]] = field(default_factory=dict)
    added: Mapping[Table, Rows] = field(default_factory=dict)
    delay_ms: int = 0
    unreadable: int = 0


def hold(conn: Connection, name: str, claim: Claim, **values: Any) -> None:
    """Fence: go on only as the board's writer. The row stays locked until the end, so no other can take over in between."""
    mine = (owners.c.epoch == claim.epoch, owners.c.holder == claim.holder, owners.c.beat == claim.beat)
    held = update(owners).where(owners.c.projection == name, *mine).values(beat=claim.beat + 1, **values)
    if conn.execute(held).rowcount != 1:
        raise FencedError(name)


def _make(conn: Connection, tables: Iterable[Table]) -> None:
    for table in tables:
        table.create(conn, checkfirst=True)


def lock_schema(conn: Connection) -> None:
    """Keep programs that start together from making the same table; SQLite's transactions already do."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(4207849485)")


def _rename_former(conn: Connection) -> None:
    """Give the tables of a store that a version without prefixes made their names; others' tables stay as they are."""
    there = {name: {str(c["name"]) for c in inspect(conn).get_columns(name)} for name in _former_tables(conn)}
    if not {"projection", "epoch"} <= there.get("owners", set()):
        return
    for name, columns in there.items():
        conn.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}__shadow"')
        if name != "positions" or "projection" in columns:  # else it is the ledger's
            conn.exec_driver_sql(f'ALTER TABLE "{name}" RENAME TO "{PREFIX}{name}"')


def _former_tables(conn: Connection) -> list[str]:
    there = set(inspect(conn).get_table_names())
    return [name for name in FORMER if name in there and f"{PREFIX}{name}" not in there]


def read_owner(conn: Connection, name: str) -> Owner | None:
    """How a board stands, in a transaction that is open."""
    row = conn.execute(select(owners).where(owners.c.projection == name)).mappings().first()
    return Owner(**row) if row else None


def read_places(conn: Connection, name: str) -> dict[int, FoldPosition]:
    """Partition → how far it is folded, in a transaction that is open."""
    found = conn.execute(select(positions).where(positions.c.projection == name))
    return {row.partition: FoldPosition(row.next_offset, row.sequences, row.as_of) for row in found}


def write_places(conn: Connection, name: str, places: Mapping[int, FoldPosition]) -> None:
    """Set positions."""
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
    put(conn, positions, rows, "projection", "partition")


def _note_history(conn: Connection, told: Mapping[str, str]) -> None:
    put(conn, histories, [{"name": name, "value": value} for name, value in sorted(told.items())], "name")


def forget(conn: Connection, name: str) -> None:
    """Remove every trace of a board but its table."""
    conn.execute(delete(positions).where(positions.c.projection == name))
    conn.execute(delete(owners).where(owners.c.projection == name))
