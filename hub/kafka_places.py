"""Single records of a topic on a Kafka broker, by their places."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from hub.errors import RetryableError
from hub.event_log import Record, runs
from hub.kafka_messages import away, record_of

SMALL = {
    "fetch.message.max.bytes": 4096,  # of one batch, at least: an answer holds one of those that were written together
    "fetch.wait.max.ms": 5,
    "queued.min.messages": 1,  # nothing is fetched ahead
    "queued.max.messages.kbytes": 1024,
    "enable.partition.eof": True,
}
NEAR = 8
"""Offsets that are read past rather than sought anew."""
SECONDS = 5.0
"""How long a broker may take to answer."""
_NO_SUCH = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._PARTITION_EOF}


class KafkaPlaces:
    """Keeps one consumer, made when it is first asked."""

    def __init__(self, settings: Mapping[str, Any], topic: str) -> None:
        self._settings, self._topic = {**settings, **SMALL}, topic
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None

    def at(self, partition: int, offsets: Iterable[int]) -> dict[int, Record]:
        wanted = sorted(set(offsets))
        if not wanted:
            return {}
        with self._lock:
            try:
                return self._read(self._open(), partition, wanted)
            except KafkaException as error:
                raise away(error) from error

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
        where = TopicPartition(self._topic, partition)
        low, high = consumer.get_watermark_offsets(where, timeout=SECONDS)
        found: dict[int, Record] = {}
        try:
            for run in runs([offset for offset in wanted if low <= offset < high], NEAR):
                consumer.assign([TopicPartition(self._topic, partition, run[0])])
                found |= self._run(consumer, run)
        finally:
            consumer.unassign()
        return found

    def _run(self, consumer: Consumer, run: list[int]) -> dict[int, Record]:
        """Those of these offsets that there are: one that is passed over was compacted away."""
        found, wanted, until = dict[int, Record](), set(run), time.monotonic() + SECONDS
        while time.monotonic() < until:
            message = consumer.poll(SECONDS)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.code() in _NO_SUCH:
                    return found
                raise KafkaException(error)
            record = record_of(message)
            if record.offset in wanted:
                found[record.offset] = record
            if record.offset >= run[-1]:
                return found
        raise RetryableError("HUB-E2104", reason=f"{self._topic} {run[0]}: > {SECONDS:.0f} s")
