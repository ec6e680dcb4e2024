"""The log on a Kafka broker, by librdkafka."""

from __future__ import annotations

from collections.abc import Mapping
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
from hub.event_log import Record
from hub.kafka_messages import away as away
from hub.kafka_messages import record_of
from hub.kafka_places import KafkaPlaces
from hub.kafka_writers import FlushedWriter, GatheringWriter, KafkaWriter, producer
from schemas.topics import PARTITIONS

_ELECTING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,  # what librdkafka says of a topic that was just made anew
}


@dataclass(frozen=True)
class KafkaLog:
    """`client` are librdkafka's own settings: `bootstrap.servers`, and those of TLS and SASL."""

    client: Mapping[str, Any]
    partitions: int = PARTITIONS

    def writer(self) -> KafkaWriter:
        return KafkaWriter(producer(self.client))

    def gathering_writer(self) -> GatheringWriter:
        """A writer for who appends now a few records and now thousands, from many threads."""
        return GatheringWriter(self.writer(), lambda: FlushedWriter(self.client))

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> KafkaReader:
        together = {"fetch.min.bytes": 262_144, "fetch.wait.max.ms": max(1, int(gather * 1000))} if gather else {}
        return KafkaReader({**_reading(self.client), **together}, topic, dict(positions))

    def places(self, topic: str) -> KafkaPlaces:
        return KafkaPlaces(_reading(self.client), topic)

    def ends(self, topic: str) -> dict[int, int]:
        return {partition: high for partition, (_, high) in self._watermarks(topic).items()}

    def starts(self, topic: str) -> dict[int, int]:
        return {partition: low for partition, (low, _) in self._watermarks(topic).items()}

    def copies(self, topic: str) -> int:
        admin = AdminClient({**self.client, "log_level": 2})
        try:
            found = admin.list_topics(topic, timeout=10).topics[topic]
        except KafkaException as error:
            raise away(error) from error
        if found.error is not None or not found.partitions:
            raise RetryableError("HUB-E2104", reason=str(found.error or topic))
        return min(len(each.replicas) for each in found.partitions.values())

    def identity(self, topic: str) -> str:
        admin = AdminClient({**self.client, "log_level": 2})
        try:
            cluster = admin.list_topics(timeout=10).cluster_id
            found = admin.describe_topics(TopicCollection([topic]), request_timeout=10)[topic].result(20)
        except KafkaException as error:
            raise away(error) from error
        return f"{cluster}/{found.topic_id}"

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
def _span(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    """The lowest and the next offset of a partition; a new topic, or a broker just started, has no leader for a moment."""
    try:
        return consumer.get_watermark_offsets(where, timeout=10)
    except KafkaException as error:
        raise away(error) from error


def _is_electing(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, KafkaException) and cause.args[0].code() in _ELECTING


def _reading(client: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **client,
        "group.id": "hub-reader",  # never joined: partitions are assigned by hand and nothing is committed
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "check.crcs": True,
        "fetch.wait.max.ms": 50,
        "fetch.message.max.bytes": 1_048_576,
        "queued.max.messages.kbytes": 4_096,  # of all partitions together, as they wait in one queue
        "fetch.queue.backoff.ms": 5,  # by default a second of silence each time that the queue has been full
        "enable.partition.eof": False,
        "log.connection.close": False,
        "log_level": 2,  # not each failed attempt to connect: an outage is told once, by who meets it
    }


class KafkaReader:
    """Reads assigned partitions; positions are the caller's to keep."""

    def __init__(self, settings: dict[str, Any], topic: str, positions: dict[int, int]) -> None:
        self.topic = topic
        self._consumer = Consumer(settings)
        self._consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in positions.items()])

    def read(self, limit: int, timeout: float) -> list[Record]:
        try:
            first = self._consumer.consume(1, timeout)
            # What is there already comes along without another wait: small batches when quiet, large ones under load.
            rest = self._consumer.consume(limit - 1, 0) if first and limit > 1 else []
        except KafkaException as error:
            raise away(error) from error
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
