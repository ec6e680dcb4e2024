"""Reads consumer positions and end offsets of the log, and the records at the front of each backlog."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from hub.errors import RetryableError
from schemas.envelope import parse_time
from schemas.topics import EVENTS, PARTITIONS

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

LogPosition = tuple[str, int, int]
"""Topic, partition, offset."""
MAX_RECORDS = 200
"""Maximum number of records read to classify a backlog."""
MAX_FETCH_BYTES = 65_536
"""Maximum bytes fetched from a partition, but at least one record."""


@dataclass(frozen=True)
class Front:
    """The front of a partition's backlog: the time of its first record, and event counts by type of the records read there."""

    since: datetime
    types: Mapping[str, int]


class LogLook(Protocol):
    """Read access to a log. Every method raises RetryableError while the log is unavailable."""

    def ends(self, topic: str) -> Mapping[int, int]:
        """Partition → the offset of the next record to be appended."""

    def folded(self) -> Mapping[int, int]:
        """Partition of `hub.events` → the next record that the processor folds."""

    def fronts(self, wanted: Iterable[LogPosition]) -> Mapping[LogPosition, Front]:
        """The backlog front at each of these positions; positions that time out are omitted."""

    def close(self) -> None:
        """Close the connections."""


def front_of(records: list[tuple[float, bytes]]) -> Front:
    """The front of records (append time, bytes), oldest first. Its time is the event's `recordedtime`, else the append time."""
    since, types = datetime.fromtimestamp(records[0][0], UTC), dict[str, int]()
    for number, (_, raw) in enumerate(records):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = orjson.loads(raw)
            types[str(event["type"])] = types.get(str(event["type"]), 0) + 1
            if number == 0 and "recordedtime" in event:
                since = parse_time(event["recordedtime"])
    return Front(since, types)


@dataclass
class KafkaLook:
    """Reuses its connections between checks; joins no group and commits nothing. Not thread-safe."""

    client: Mapping[str, Any]
    timeout: float = 5.0
    _consumer: Consumer | None = None
    _admin: AdminClient | None = None
    _known: dict[LogPosition, Front] = field(default_factory=dict)

    def ends(self, topic: str) -> dict[int, int]:
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        return self._offsets(topic, OffsetSpec.latest())  # type: ignore[no-untyped-call]

    def _offsets(self, topic: str, spec: Any) -> dict[int, int]:
        from confluent_kafka import TopicPartition

        wanted = {TopicPartition(topic, partition): spec for partition in range(PARTITIONS)}
        with self._reconnect_after_errors():
            futures = self._admin_client().list_offsets(wanted, request_timeout=self.timeout)
            return {where.partition: future.result(self.timeout + 1).offset for where, future in futures.items()}

    def folded(self) -> dict[int, int]:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

        partitions = [TopicPartition(EVENTS.name, partition) for partition in range(PARTITIONS)]
        with self._reconnect_after_errors():
            committed = {
                at.partition: at.offset for at in self._log_consumer().committed(partitions, timeout=self.timeout)
            }
        if all(offset >= 0 for offset in committed.values()):
            return committed
        starts = self._offsets(EVENTS.name, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        return {partition: offset if offset >= 0 else starts[partition] for partition, offset in committed.items()}

    def fronts(self, wanted: Iterable[LogPosition]) -> dict[LogPosition, Front]:
        positions = set(wanted)
        self._known = {at: front for at, front in self._known.items() if at in positions}
        missing = positions - self._known.keys()
        while missing:
            # One position of a partition per read: an assignment has one offset for each partition.
            batch = {(topic, partition): offset for topic, partition, offset in sorted(missing)}
            self._known |= self._read(batch)
            missing -= {(*where, offset) for where, offset in batch.items()}
        return dict(self._known)

    def _read(self, wanted: Mapping[tuple[str, int], int]) -> dict[LogPosition, Front]:
        from confluent_kafka import TopicPartition

        consumer = self._log_consumer()
        read: dict[tuple[str, int], list[tuple[float, bytes]]] = {}
        with self._reconnect_after_errors():
            consumer.assign([TopicPartition(*where, offset) for where, offset in wanted.items()])
            for _ in range(int(self.timeout / 0.1)):
                if len(read) == len(wanted):
                    break
                for message in consumer.consume(MAX_RECORDS, 0.1):
                    if message.error() is None:
                        where = (str(message.topic()), int(message.partition() or 0))
                        read.setdefault(where, []).append((message.timestamp()[1] / 1000, message.value() or b""))
            consumer.unassign()
        return {(*where, wanted[where]): front_of(records) for where, records in read.items()}

    @contextlib.contextmanager
    def _reconnect_after_errors(self) -> Iterator[None]:
        """Closes the connections after an error: an admin client keeps a leader's old epoch permanently, as observed with a
        broker that froze and was then re-elected ("Leader epoch is older than broker epoch")."""
        from confluent_kafka import KafkaException

        from hub.log.kafka_log import broker_unavailable

        try:
            yield
        except KafkaException as error:
            self.close()
            raise broker_unavailable(error) from error
        except TimeoutError as error:
            self.close()
            raise RetryableError("HUB-E2104", reason=f"> {self.timeout:.0f} s") from error

    def _admin_client(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        if self._admin is None:
            self._admin = AdminClient({**self.client, "reconnect.backoff.max.ms": 1000, "log_level": 0})
        return self._admin

    def _log_consumer(self) -> Consumer:
        from confluent_kafka import Consumer

        from hub.processor import GROUP

        if self._consumer is None:
            self._consumer = Consumer({**self.client, "group.id": GROUP, **CONSUMER_SETTINGS})
        return self._consumer

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._admin = None, None


CONSUMER_SETTINGS = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "reconnect.backoff.max.ms": 1000,
    "fetch.message.max.bytes": MAX_FETCH_BYTES,
    "queued.max.messages.kbytes": 1024,
    "fetch.wait.max.ms": 50,
    "log.connection.close": False,
    "log_level": 0,
}
