"""How far the processor is behind the end of the log: what it has committed, beside what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hub.errors import RetryableError

PATIENCE = 5.0
"""Seconds to wait for the broker."""


@dataclass(frozen=True)
class Progress:
    """Partition → next offset: `done` by the processor, and the log's `ends`."""

    done: Mapping[int, int]
    ends: Mapping[int, int]

    @property
    def lag(self) -> int:
        """Events that are still to be folded."""
        return sum(max(0, end - self.done.get(partition, 0)) for partition, end in self.ends.items())


def progress(client: Mapping[str, Any]) -> Progress:
    """Ask the broker; raises RetryableError while it is away. Joins no group and commits nothing."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    from hub.kafka_log import away
    from hub.worker import GROUP
    from schemas.topics import EVENTS, PARTITIONS

    consumer = Consumer({**client, "group.id": GROUP, "enable.auto.commit": False, "log_level": 0})
    partitions = [TopicPartition(EVENTS.name, partition) for partition in range(PARTITIONS)]
    try:
        marks = {tp.partition: consumer.get_watermark_offsets(tp, timeout=PATIENCE) for tp in partitions}
        committed = {tp.partition: tp.offset for tp in consumer.committed(partitions, timeout=PATIENCE)}
    except KafkaException as error:
        raise away(error) from error
    finally:
        consumer.close()
    if any(mark is None for mark in marks.values()):
        raise RetryableError("HUB-E2104", reason="no watermark")
    starts = {partition: low for partition, (low, _) in marks.items()}
    done = {partition: offset if offset >= 0 else starts[partition] for partition, offset in committed.items()}
    return Progress(done, {partition: high for partition, (_, high) in marks.items()})
