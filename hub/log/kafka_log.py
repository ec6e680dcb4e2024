"""The log on a Kafka broker, through librdkafka: watermarks, readers, and reads of single records by offset.

Kafka's messages and errors become the hub's own records and errors here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from hub.errors import FatalError, RetryableError
from hub.log.event_log import Record, runs
from hub.log.kafka_writers import FlushedWriter, GatheringWriter, KafkaWriter, producer
from schemas.topics import PARTITIONS


def broker_unavailable(error: KafkaException) -> RetryableError:
    """The error to raise when the broker did not respond."""
    return RetryableError("HUB-E2104", reason=error.args[0].str())


def record_of(message: Message) -> Record:
    """The record of a message that carries no error."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # a message without an error has them
    return Record(topic, partition, offset, message.key(), message.value(), message.timestamp()[1] / 1000)


_ELECTING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # librdkafka's error for a topic that was just recreated
}


@dataclass(frozen=True)
class KafkaLog:
    """A log on a Kafka cluster. `client` are librdkafka's own settings: `bootstrap.servers`, and those of TLS and SASL."""

    client: Mapping[str, Any]
    partitions: int = PARTITIONS

    def writer(self) -> KafkaWriter:
        return KafkaWriter(producer(self.client))

    def gathering_writer(self) -> GatheringWriter:
        """A writer for many threads, whose appends range from a few records to thousands."""
        return GatheringWriter(self.writer(), lambda: FlushedWriter(self.client))

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> KafkaReader:
        batching = {"fetch.min.bytes": 262_144, "fetch.wait.max.ms": max(1, int(gather * 1000))} if gather else {}
        return KafkaReader({**_reading(self.client), **batching}, topic, dict(positions))

    def places(self, topic: str) -> KafkaOffsetReader:
        return KafkaOffsetReader(_reading(self.client), topic)

    def ends(self, topic: str) -> dict[int, int]:
        return {partition: high for partition, (_, high) in self._watermarks(topic).items()}

    def starts(self, topic: str) -> dict[int, int]:
        return {partition: low for partition, (low, _) in self._watermarks(topic).items()}

    def copies(self, topic: str) -> int:
        admin = AdminClient({**self.client, "log_level": 2})
        try:
            topic_metadata = admin.list_topics(topic, timeout=10).topics[topic]
        except KafkaException as error:
            raise broker_unavailable(error) from error
        if topic_metadata.error is not None or not topic_metadata.partitions:
            raise RetryableError("HUB-E2104", reason=str(topic_metadata.error or topic))
        return min(len(each.replicas) for each in topic_metadata.partitions.values())

    def identity(self, topic: str) -> str:
        admin = AdminClient({**self.client, "log_level": 2})
        try:
            cluster = admin.list_topics(timeout=10).cluster_id
            description = admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result(20)
        except KafkaException as error:
            raise broker_unavailable(error) from error
        return f"{cluster}/{description.topic_id}"

    def _watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        consumer = Consumer(_reading(self.client))
        try:
            return {
                partition: _span(consumer, TopicPartition(topic, partition)) for partition in range(self.partitions)
            }
        finally:
            consumer.close()


@retry(
    retry=retry_if_exception(lambda error: _is_electing(error)),
    wait=wait_fixed(0.1),
    stop=stop_after_delay(10),
    reraise=True,
)
def _span(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """A partition's low and high watermark; a new topic, or a broker that just started, briefly has no leader."""
    try:
        return consumer.get_watermark_offsets(partition, timeout=10)
    except KafkaException as error:
        raise broker_unavailable(error) from error


def _is_electing(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in _ELECTING


def _reading(client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **client,
        "group.id": "hub-reader",  # never joined: partitions are assigned manually and nothing is committed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "check.crcs": True,
        "fetch.wait.max.ms": 50,
        "fetch.message.max.bytes": 1_048_576,
        "queued.max.messages.kbytes": 4_096,  # of all partitions together, as they share one queue
        "fetch.queue.backoff.ms": 5,  # the default pauses for a second each time the queue has been full
        "enable.partition.eof": False,
        "log.connection.close": False,
        "log_level": 2,  # not each failed attempt to connect: the caller logs an outage once
    }


class KafkaReader:
    """Reads assigned partitions; the caller tracks the positions."""

    def __init__(self, settings: dict[str, Any], topic: str, positions: dict[int, int]) -> None:
        self.topic = topic
        self._consumer = Consumer(settings)
        self._consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in positions.items()])

    def read(self, limit: int, timeout: float) -> list[Record]:
        try:
            first = self._consumer.consume(1, timeout)
            # Messages that are fetched already come without another wait: small batches when quiet, large ones under load.
            rest = self._consumer.consume(limit - 1, 0) if first and limit > 1 else []
        except KafkaException as error:
            raise broker_unavailable(error) from error
        return [_record(message) for message in (*first, *rest)]

    def close(self) -> None:
        self._consumer.close()


def _record(message: Message) -> Record:
    error = message.error()
    if error is not None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise FatalError("HUB-E2105", topic=message.topic(), partition=message.partition(), reason=error.str())
        raise RetryableError("HUB-E2104", reason=error.str())
    return record_of(message)


LOOKUP_SETTINGS = {
    "fetch.message.max.bytes": 4096,  # a fetch returns one whole batch at least, whatever this limit
    "fetch.wait.max.ms": 5,
    "queued.min.messages": 1,  # no prefetch
    "queued.max.messages.kbytes": 1024,
    "enable.partition.eof": True,
}
MAX_SKIPPED_OFFSETS = 8
"""A gap of up to this many offsets is read through; a larger one gets a new seek."""
LOOKUP_TIMEOUT_S = 5.0
"""How long a broker may take to respond."""
_NOT_FOUND = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._PARTITION_EOF}


class KafkaOffsetReader:
    """Reads single records of one topic by offset, with one consumer that it creates on first use."""

    def __init__(self, settings: Mapping[str, Any], topic: str) -> None:
        self._settings, self._topic = {**settings, **LOOKUP_SETTINGS}, topic
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        sorted_offsets = sorted(set(offsets))
        if not sorted_offsets:
            return {}
        with self._lock:
            try:
                return self._read(self._open(), partition, sorted_offsets)
            except KafkaException as error:
                raise broker_unavailable(error) from error

    def close(self) -> None:
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
            self._consumer = None

    def _open(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(self._settings)
        return self._consumer

    def _read(self, consumer: Consumer, partition: int, wanted: list[int]) -> dict[int, Record]:
        topic_partition = TopicPartition(self._topic, partition)
        low, high = consumer.get_watermark_offsets(topic_partition, timeout=LOOKUP_TIMEOUT_S)
        records: dict[int, Record] = {}
        try:
            for run in runs([offset for offset in wanted if low <= offset < high], MAX_SKIPPED_OFFSETS):
                consumer.assign([TopicPartition(self._topic, partition, run[0])])
                records |= self._read_run(consumer, run)
        finally:
            consumer.unassign()
        return records

    def _read_run(self, consumer: Consumer, run: list[int]) -> dict[int, Record]:
        """The records that exist at these offsets: one that is skipped was compacted away."""
        records, wanted, deadline = dict[int, Record](), set(run), time.monotonic() + LOOKUP_TIMEOUT_S
        while time.monotonic() < deadline:
            message = consumer.poll(LOOKUP_TIMEOUT_S)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.code() in _NOT_FOUND:
                    return records
                raise KafkaException(error)
            record = record_of(message)
            if record.offset in wanted:
                records[record.offset] = record
            if record.offset >= run[-1]:
                return records
        raise RetryableError("HUB-E2104", reason=f"{self._topic} {run[0]}: > {LOOKUP_TIMEOUT_S:.0f} s")
