"""What outlives a crash: the log, the ledger and the boards, in memory, behind doors that misbehave."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, event, insert

from hub.errors import RetryableError
from hub.ledger import identity
from hub.ledger.database import metadata as ledger_tables
from hub.ledger.database import open_engine
from hub.ledger.ledger import Ledger
from hub.ledger.writer import LedgerWriter as LedgerWriter
from hub.ledger.writer import _Request
from hub.log.event_log import LogWriter, OffsetReader, Outgoing, Reader, Record
from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.store import BoardStore
from hub.projector.store import metadata as store_tables
from tests.simulation.chance import Chance, SimClock

OUTBOX = "sim"
PARTITIONS = 3
"""Fewer than the product's, so that a history of a few cases fills them all."""


class Database:
    """A database in memory, kept from one history to the next: only its rows are new each time."""

    def __init__(self, *tables: MetaData) -> None:
        self.engine: Engine = open_engine("sqlite://")
        self.clock = SimClock()
        self.tables = tables

        @event.listens_for(self.engine, "connect")
        def prepare(connection: sqlite3.Connection, _record: object) -> None:
            connection.create_function("julianday", 1, lambda what: self.clock.julian_day(what))

        with self.engine.begin() as conn:
            for each in tables:
                each.create_all(conn)

    def clear(self, clock: SimClock) -> None:
        """Begin anew."""
        self.clock = clock
        with self.engine.begin() as conn:
            for each in self.tables:
                for table in each.sorted_tables:
                    conn.execute(table.delete())
            if conn.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'").first():
                conn.exec_driver_sql("DELETE FROM sqlite_sequence")


def ledger_database() -> Database:
    """One for the ledger."""
    return Database(ledger_tables)


def board_database() -> Database:
    """One for the boards."""
    return Database(store_tables, *(projection.table.metadata for projection in registry.projections().values()))


class InlineWriter(LedgerWriter):
    """The ledger's writer without its thread: what is asked for is committed at once, and that may be the last commit."""

    def __init__(self, engine: Engine, chance: Chance) -> None:
        self.engine, self.chance = engine, chance
        self._listeners = []
        self._closed = False
        self._batch: list[_Request] | None = None

    def _enqueue(self, request: _Request) -> Future[Any]:
        request.result.set_running_or_notify_cancel()
        if self._batch is None:
            self._commit([request])
        else:
            self._batch.append(request)
        return request.result

    @contextmanager
    def one_commit(self) -> Iterator[None]:
        """All that is asked for in here shares a commit, as what threads ask for at the same time does."""
        self._batch = []
        try:
            yield
        finally:
            batch, self._batch = self._batch, None
        self._commit(batch)

    def _commit(self, batch: list[_Request]) -> None:
        try:
            self.chance.before("ledger", "HUB-E5002")
        except RetryableError as error:
            for request in batch:
                request.result.set_exception(error)
            return
        copies = [replace(request, result=Future[Any]()) for request in batch]
        with self.chance.locked():
            self._write(copies)
        for request, done in zip(batch, copies, strict=True):
            self._answer(request.result, done.result)

    def _answer(self, asked: Future[Any], done: Future[Any]) -> None:
        error = done.exception()
        try:
            if error is None:
                self.chance.after("ledger", "HUB-E5002")
        except RetryableError as lost:
            error = lost
        if error is None:
            asked.set_result(done.result())
        else:
            asked.set_exception(error)


class SimLedger(Ledger):
    """A program's own door to the ledger."""

    def __init__(self, engine: Engine, chance: Chance) -> None:
        self.engine, self.chance = engine, chance
        self.writer: InlineWriter = InlineWriter(engine, chance)
        self.outbox_id = OUTBOX

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.chance.locked(), super().reading() as conn:
            yield conn


def name_outbox(database: Database) -> None:
    """Give the ledger the name that a program's first start would."""
    with database.engine.begin() as conn:
        conn.execute(insert(identity.identity).values(name="outbox", value=OUTBOX))


class SimStore(BoardStore):
    """A program's own door to the boards."""

    def __init__(self, engine: Engine, chance: Chance) -> None:
        self.engine, self.chance = engine, chance

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self.chance.locked(), super().reading() as conn:
            yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        self.chance.before("boards", "HUB-E5002")
        with self.chance.locked(), super().writing() as conn:
            yield conn
        self.chance.after("boards", "HUB-E5002")


@dataclass
class SimLog:
    """A program's own door to the log: appends may fail before, amid and after, and reads may find it away."""

    log: MemoryLog
    chance: Chance
    clock: SimClock

    def writer(self) -> LogWriter:
        return _SimWriter(self)

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> Reader:
        return _SimReader(self, self.log.reader(topic, positions))

    def places(self, topic: str) -> OffsetReader:
        return self.log.places(topic)

    def ends(self, topic: str) -> dict[int, int]:
        return self.log.ends(topic)

    def starts(self, topic: str) -> dict[int, int]:
        return self.log.starts(topic)

    def copies(self, topic: str) -> int:
        return self.log.copies(topic)

    def identity(self, topic: str) -> str:
        return self.log.identity(topic)


@dataclass
class _SimWriter:
    log: SimLog

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        chance = self.log.chance
        chance.before("log", "HUB-E2101")
        if chance.trouble("torn", "log"):
            self._put(records[: chance.random.randrange(len(records) + 1)])
            raise RetryableError("HUB-E2101", cluster="sim", reason="torn")
        self._put(records)
        chance.after("log", "HUB-E2101")

    def _put(self, records: Sequence[Outgoing]) -> None:
        now = self.log.clock.now().timestamp()
        inner, before = self.log.log, {}
        for record in records:
            before[record.topic] = inner.ends(record.topic)
        inner.writer().append(records)
        for topic, ends in before.items():
            for partition, end in ends.items():
                there = inner.records[topic, partition]
                there[end:] = [record._replace(time=now) for record in there[end:]]

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class _SimReader:
    log: SimLog
    inner: Reader

    def read(self, limit: int, timeout: float) -> list[Record]:
        if self.log.chance.trouble("away", "log.read"):
            raise RetryableError("HUB-E2101", cluster="sim", reason="away")
        return self.inner.read(limit, 0.0)

    def close(self) -> None:
        self.inner.close()
