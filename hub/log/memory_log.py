"""The log in memory: for tests, and for trying rules without a broker."""

from __future__ import annotations

import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hub.errors import RejectedError
from hub.log.event_log import MAX_RECORD_BYTES, Outgoing, Record
from hub.log.partitioner import partition_of
from schemas.topics import PARTITIONS


@dataclass
class MemoryLog:
    """A log that retains every record; readers see an append immediately."""

    partitions: int = PARTITIONS
    records: dict[tuple[str, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    changed: threading.Condition = field(default_factory=threading.Condition)
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    replicas: int = 3
    """The replication factor that it reports."""

    def writer(self) -> MemoryWriter:
        return MemoryWriter(self)

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> MemoryReader:
        return MemoryReader(self, topic, dict(positions))

    def places(self, topic: str) -> MemoryOffsetReader:
        return MemoryOffsetReader(self, topic)

    def ends(self, topic: str) -> dict[int, int]:
        return {partition: len(self.records[topic, partition]) for partition in range(self.partitions)}

    def starts(self, topic: str) -> dict[int, int]:
        return dict.fromkeys(range(self.partitions), 0)

    def copies(self, topic: str) -> int:
        return self.replicas

    def identity(self, topic: str) -> str:
        return f"{self.name}/{topic}"


@dataclass
class MemoryWriter:
    """Appends to a MemoryLog."""

    log: MemoryLog

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        with self.log.changed:
            for record in records:
                if len(record.key) + len(record.value or b"") > MAX_RECORD_BYTES:
                    raise RejectedError("HUB-E2102", reason=f"> {MAX_RECORD_BYTES}")
                partition = (
                    partition_of(record.key, self.log.partitions) if record.partition is None else record.partition
                )
                partition_records = self.log.records[record.topic, partition]
                partition_records.append(
                    Record(record.topic, partition, len(partition_records), record.key, record.value)
                )
            self.log.changed.notify_all()

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class MemoryReader:
    """Reads from a MemoryLog."""

    log: MemoryLog
    topic: str
    positions: dict[int, int]

    def read(self, limit: int, timeout: float) -> list[Record]:
        with self.log.changed:
            if not self._take(0):
                self.log.changed.wait(timeout)
            batch = self._take(limit)
            for record in batch:
                self.positions[record.partition] = record.offset + 1
            return batch

    def _take(self, limit: int) -> list[Record]:
        """The available records, up to `limit`; with limit 0, one record if any."""
        batch: list[Record] = []
        for partition, position in self.positions.items():
            records = self.log.records[self.topic, partition]
            batch += records[position : position + max(limit, 1) - len(batch)]
        return batch

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class MemoryOffsetReader:
    """Reads single records of a MemoryLog by offset."""

    log: MemoryLog
    topic: str

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        records = self.log.records[self.topic, partition]
        return {offset: records[offset] for offset in offsets if 0 <= offset < len(records)}

    def close(self) -> None:
        """Nothing to close."""
