"""The log, as the hub's parts see it: partitions of records, appended durably and read in order.

`KafkaLog` keeps it on a broker, `MemoryLog` in the process for tests; one contract suite holds both to these promises.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from hub.errors import FatalError, RetryableError
from hub.runtime.watchdog import beat
from schemas.envelope import MAX_BYTES

LARGEST = 8 * MAX_BYTES
"""Bytes of a record that a log still takes: what is parked carries its event in it, and a state all of a case."""

SILENT = 60
"""Seconds without a record after which a log that has more is held to be away."""


class Stored(Protocol):
    """A record that lies in the log, in whatever form a client of Kafka gave it."""

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
    """A record as it lies in the log. `time` is when it was appended, in seconds since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time: float = 0.0


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A record to append. Without a partition, the key's murmur2 hash chooses it, as in every client of Kafka."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int | None = None


class LogWriter(Protocol):
    """Appends. One writer keeps its order per partition; two writers have none between them."""

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        """Return once the log has every record, in the order given per partition.

        Raises RetryableError when that is not known within `timeout` seconds: some may be there, so append again.
        Raises RejectedError for a record that the log will never take (too large).
        """

    def close(self) -> None:
        """Let go of the connection; nothing is unsent after `append` has returned."""


class Reader(Protocol):
    """Reads some partitions of one topic from given offsets on."""

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Up to `limit` records, waiting at most `timeout` seconds for the first; in offset order within a partition.

        Raises RetryableError while the log is away, FatalError when an offset that was asked for is no longer kept.
        """

    def close(self) -> None:
        """Let go of the connection."""


class PlaceReader(Protocol):
    """Reads single records of one topic by their places. Keeps its connection, so that a record costs a millisecond or two.

    Several threads may use it.
    """

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        """Those of these records that the log still has, by offset. Raises RetryableError while it is away."""

    def close(self) -> None:
        """Let go of the connection."""


class EventLog(Protocol):
    """A log of topics, each with the same number of partitions."""

    def writer(self) -> LogWriter:
        """A new writer."""

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> Reader:
        """A reader of these partitions, each from its next offset on.

        The log may gather records for `gather` seconds before it answers: fewer and larger answers, for who is in no hurry.
        """

    def places(self, topic: str) -> PlaceReader:
        """A reader of single records. Connects when it is first asked."""

    def ends(self, topic: str) -> dict[int, int]:
        """Partition → the offset that the next record will have."""

    def starts(self, topic: str) -> dict[int, int]:
        """Partition → the lowest offset that is still kept."""

    def copies(self, topic: str) -> int:
        """How many brokers keep each record, at least. Raises as `identity`."""

    def identity(self, topic: str) -> str:
        """The cluster's id and the topic's own: another after either was made anew, whatever its name and address.

        Raises RetryableError while the log is away, or while it has no such topic.
        """


def read_to_end(
    log: EventLog, topic: str, positions: Mapping[int, int], *, limit: int = 2000
) -> Iterable[list[Record]]:
    """Batches of what lies in the log now, from `positions` on; ends where the log ended when it was called.

    Raises RetryableError when for a minute none comes of what is there: a partition may be away alone.
    """
    ends = log.ends(topic)
    missing = {partition: end for partition, end in ends.items() if positions.get(partition, 0) < end}
    missing = {partition: end for partition, end in missing.items() if partition in positions}
    if not missing:
        return
    reader = log.reader(topic, {partition: positions[partition] for partition in missing})
    silent = 0
    try:
        while missing:
            if silent == SILENT:
                raise RetryableError("HUB-E2104", reason=f"{topic} {sorted(missing)}: > {SILENT} s")
            batch = [r for r in reader.read(limit, 1.0) if r.offset < ends[r.partition]]
            silent = 0 if batch else silent + 1
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


NEAR = 1000
"""Offsets that are read past rather than that a reader is made for what lies behind them."""


def records_at(log: EventLog, topic: str, partition: int, offsets: Sequence[int]) -> list[bytes]:
    """The bytes of these records, in this order. Raises FatalError HUB-E6022 when one does not come within half a minute."""
    found = dict[int, bytes]()
    for wanted in runs(sorted(set(offsets)), NEAR):
        found |= _read_run(log, topic, partition, wanted)
    return [found[offset] for offset in offsets]


def runs(offsets: Sequence[int], near: int) -> Iterable[list[int]]:
    """Offsets in their order, cut where more than `near` others lie between two of them."""
    run = list[int]()
    for offset in offsets:
        if run and offset - run[-1] > near:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run


def _read_run(log: EventLog, topic: str, partition: int, offsets: Sequence[int]) -> dict[int, bytes]:
    reader, wanted, found = log.reader(topic, {partition: offsets[0]}), set(offsets), dict[int, bytes]()
    silent = 0
    try:
        while silent < SILENT // 2:
            batch = reader.read(NEAR, 1.0)
            silent = 0 if batch else silent + 1
            found |= {record.offset: record.value or b"" for record in batch if record.offset in wanted}
            if len(found) == len(wanted):
                return found
            if batch and batch[-1].offset > offsets[-1]:
                break
    finally:
        reader.close()
    raise FatalError("HUB-E6022", partition=partition, offset=min(wanted - found.keys()))
