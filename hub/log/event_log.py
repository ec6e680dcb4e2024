"""The log interface: partitions of records, appended durably and read in order.

`KafkaLog` implements it on a broker, `MemoryLog` in the process for tests; one contract suite tests both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from hub.errors import FatalError, RetryableError
from hub.runtime.watchdog import beat
from schemas.envelope import MAX_BYTES

MAX_RECORD_BYTES = 8 * MAX_BYTES
"""The largest record that a log accepts: a dead letter carries its whole event, and a state record all of a case."""

SILENCE_TIMEOUT_S = 60
"""Seconds without a record after which a log that has more counts as unavailable."""


class StoredRecord(Protocol):
    """A record of the log, in the form that any Kafka client returns."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Record(NamedTuple):
    """A record read from the log. `time` is when it was appended, in seconds since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time: float = 0.0


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A record to append. Without a partition, the key's murmur2 hash chooses it, as in every Kafka client."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None


class LogWriter(Protocol):
    """Appends records. One writer keeps its order per partition; there is no order between two writers."""

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        """Return once the log has every record, in the order given per partition.

        Raises RetryableError when that is not known within `timeout` seconds: the log may have some, so append all again.
        Raises RejectedError for a record that the log will never accept (too large).
        """

    def close(self) -> None:
        """Close the connection; nothing is unsent after `append` has returned."""


class Reader(Protocol):
    """Reads some partitions of one topic, each from a given offset on."""

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` records, waiting at most `timeout` seconds for the first; in offset order within a partition.

        Raises RetryableError while the log is unavailable, FatalError when a requested offset is no longer retained.
        """

    def close(self) -> None:
        """Close the connection."""


class OffsetReader(Protocol):
    """Reads single records of one topic by offset. Reuses its connection, so that a record costs a millisecond or two.

    Thread-safe.
    """

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        """The records at these offsets, of those the log still has, by offset. Raises RetryableError while it is unavailable."""

    def close(self) -> None:
        """Close the connection."""


class EventLog(Protocol):
    """A log of topics that all have the same number of partitions."""

    def writer(self) -> LogWriter:
        """A new writer."""

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> Reader:
        """A reader of these partitions, each from its next offset on.

        The log may gather records for `gather` seconds before it answers: fewer and larger responses, for readers that can wait.
        """

    def places(self, topic: str) -> OffsetReader:
        """A reader of single records. Connects on first use."""

    def ends(self, topic: str) -> dict[int, int]:
        """Partition → the offset that the next record will have."""

    def starts(self, topic: str) -> dict[int, int]:
        """Partition → the lowest offset that is still retained."""

    def copies(self, topic: str) -> int:
        """The replication factor: the lowest number of replicas of any partition. Raises as `identity`."""

    def identity(self, topic: str) -> str:
        """The cluster id and the topic id: they change when either is recreated, even under the same name and address.

        Raises RetryableError while the log is unavailable, or while it has no such topic.
        """


def read_to_end(
    log: EventLog, topic: str, positions: Mapping[int, int], *, limit: int = 2000
) -> Iterable[list[Record]]:
    """Batches of the records in the log now, from `positions` on; stops at the end offsets of the moment of the call.

    Raises RetryableError when none of these records arrives for a minute: a single partition may be unavailable.
    """
    ends = log.ends(topic)
    missing = {partition: end for partition, end in ends.items() if positions.get(partition, 0) < end}
    missing = {partition: end for partition, end in missing.items() if partition in positions}
    if not missing:
        return
    reader = log.reader(topic, {partition: positions[partition] for partition in missing})
    empty_reads = 0
    try:
        while missing:
            if empty_reads == SILENCE_TIMEOUT_S:
                raise RetryableError("HUB-E2104", reason=f"{topic} {sorted(missing)}: > {SILENCE_TIMEOUT_S} s")
            batch = [r for r in reader.read(limit, 1.0) if r.offset < ends[r.partition]]
            empty_reads = 0 if batch else empty_reads + 1
            beat()
            if batch:
                yield batch
            for record in batch:
                if record.offset + 1 >= ends[record.partition]:
                    missing.pop(record.partition, None)
    finally:
        reader.close()


def record_at(log: EventLog, topic: str, partition: int, offset: int) -> bytes:
    """The bytes of one record; raises as `records_at`."""
    return records_at(log, topic, partition, [offset])[0]


MAX_SKIPPED_OFFSETS = 1000
"""A gap of up to this many offsets is read through; a larger one gets a new reader."""


def records_at(log: EventLog, topic: str, partition: int, offsets: Sequence[int]) -> list[bytes]:
    """The bytes of these records, in this order. Raises FatalError HUB-E6022 when one does not arrive within 30 s."""
    values = dict[int, bytes]()
    for run in runs(sorted(set(offsets)), MAX_SKIPPED_OFFSETS):
        values |= _read_run(log, topic, partition, run)
    return [values[offset] for offset in offsets]


def runs(offsets: Sequence[int], near: int) -> Iterable[list[int]]:
    """Sorted offsets, split into runs wherever two of them are more than `near` apart."""
    run = list[int]()
    for offset in offsets:
        if run and offset - run[-1] > near:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run


def _read_run(log: EventLog, topic: str, partition: int, offsets: Sequence[int]) -> dict[int, bytes]:
    reader, wanted, values = log.reader(topic, {partition: offsets[0]}), set(offsets), dict[int, bytes]()
    empty_reads = 0
    try:
        while empty_reads < SILENCE_TIMEOUT_S // 2:
            batch = reader.read(MAX_SKIPPED_OFFSETS, 1.0)
            empty_reads = 0 if batch else empty_reads + 1
            values |= {record.offset: record.value or b"" for record in batch if record.offset in wanted}
            if len(values) == len(wanted):
                return values
            if batch and batch[-1].offset > offsets[-1]:
                break
    finally:
        reader.close()
    raise FatalError("HUB-E6022", partition=partition, offset=min(wanted - values.keys()))
