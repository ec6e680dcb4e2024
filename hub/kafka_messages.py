"""What Kafka's client gives, as the hub knows it: records, and outages."""

from __future__ import annotations

from confluent_kafka import KafkaException, Message

from hub.errors import RetryableError
from hub.event_log import Record


def away(error: KafkaException) -> RetryableError:
    """The broker did not answer."""
    return RetryableError("HUB-E2104", reason=error.args[0].str())


def record_of(message: Message) -> Record:
    """The record of a message that is no error."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None  # a message without an error has them
    return Record(topic, partition, offset, message.key(), message.value(), message.timestamp()[1] / 1000)
