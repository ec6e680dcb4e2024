"""Appends to a Kafka broker with librdkafka's idempotent producers: a few records immediately, thousands in batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from hub.errors import FatalError, RejectedError, RetryableError
from hub.log.event_log import MAX_RECORD_BYTES, LogWriter, Outgoing
from hub.runtime.failpoints import failpoint

LARGE_APPEND_RECORDS = 200
"""An append of at least this many records counts as a large one."""
LINGER_MS = 3
"""The producer's linger for large appends."""
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}

DeliveryReport = Callable[[KafkaError | None, Message], None]


def producer(client: Mapping[str, Any], **more: Any) -> Producer:
    """A librdkafka producer with the settings that every part of the hub needs: idempotent, acks=all, murmur2 partitioner."""
    return Producer(
        {
            **client,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "compression.type": "lz4",
            "message.max.bytes": MAX_RECORD_BYTES,
            "delivery.timeout.ms": 120_000,
            "queue.buffering.max.messages": 1_000_000,
            "log.connection.close": False,
            "log_level": 2,  # not each failed attempt to connect: the caller logs an outage once
            **more,
        }
    )


class KafkaWriter:
    """Appends immediately. Thread-safe: each caller waits for the delivery reports of its own records only."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self._closed = False
        self._poller = threading.Thread(target=self._poll, name="log-writer", daemon=True)
        self._poller.start()

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        deliveries = _Deliveries(len(records))
        _append(self.producer, records, deliveries.report, lambda: deliveries.settle(timeout))

    def _poll(self) -> None:
        while not self._closed:
            self.producer.poll(0.2)

    def close(self) -> None:
        _purge(self.producer)
        self._closed = True
        self._poller.join(5)


class FlushedWriter:
    """Appends many records, for one thread at a time: only failures are reported, and a flush confirms all other deliveries.

    A delivery report for each record would cost as much as all other work to send it. A flush checks every 10 ms whether it
    is done.
    """

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._failed: list[KafkaError] = []
        self._closed = False
        # Without a linger, librdkafka sends the first records of a batch alone, each in its own request.
        settings = {"linger.ms": LINGER_MS, "delivery.report.only.error": True, "on_delivery": self._report}
        self.producer = producer(client, **settings)

    def _report(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        _append(self.producer, records, None, lambda: self._settle(timeout))

    def _settle(self, timeout: float) -> None:
        missing = self.producer.flush(timeout)
        if self._failed:
            raise _refused(self._failed[0])
        if missing or self._closed:  # purged records no longer count as missing
            raise RetryableError("HUB-E2101", missing=missing)

    def close(self) -> None:
        self._closed = True
        _purge(self.producer)


class GatheringWriter:
    """Appends a few records immediately, as people wait for them, and many through a pooled writer that no other thread shares.

    Records of one thread keep their order: each of its appends ends before the next begins, and a failed writer is closed.
    """

    def __init__(self, prompt: LogWriter, make: Callable[[], LogWriter]) -> None:
        self._prompt, self._make = prompt, make
        self._idle: list[LogWriter] = []
        self._busy: set[LogWriter] = set()

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        if len(records) < LARGE_APPEND_RECORDS:
            self._prompt.append(records, timeout)
            return
        writer = self._acquire()
        try:
            writer.append(records, timeout)
        except BaseException:
            writer.close()
            raise
        else:
            self._idle.append(writer)
        finally:
            self._busy.discard(writer)

    def _acquire(self) -> LogWriter:
        try:
            writer = self._idle.pop()
        except IndexError:  # the pool grows to the number of threads that append at the same time
            writer = self._make()
        self._busy.add(writer)
        return writer

    def close(self) -> None:
        for writer in (self._prompt, *self._idle, *self._busy):
            writer.close()


class _Deliveries:
    """The delivery reports of one `append`; they arrive on the poller's thread."""

    def __init__(self, expected: int) -> None:
        self.missing = expected
        self.failed: KafkaError | None = None
        self.all_reported = threading.Event()
        if expected == 0:
            self.all_reported.set()

    def report(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self.failed is None:
            self.failed = error
        self.missing -= 1
        if self.missing == 0:
            self.all_reported.set()

    def settle(self, timeout: float) -> None:
        is_complete = self.all_reported.wait(timeout)
        if self.failed is not None:
            raise _refused(self.failed)
        if not is_complete:
            raise RetryableError("HUB-E2101", missing=self.missing)


def _append(
    producer: Producer, records: Sequence[Outgoing], report: DeliveryReport | None, settle: Callable[[], None]
) -> None:
    failpoint("log.before-append")
    for record in records:
        _send(producer, record, report)
    failpoint("log.sent")
    settle()
    failpoint("log.appended")


def _send(producer: Producer, record: Outgoing, report: DeliveryReport | None) -> None:
    partition = -1 if record.partition is None else record.partition  # -1: by the key
    while True:
        try:
            producer.produce(record.topic, record.value, record.key, partition, report)
            return
        except BufferError:
            time.sleep(0.01)  # librdkafka's own threads, or the poller, drain the queue
        except KafkaException as error:
            raise _refused(error.args[0]) from error


def _purge(producer: Producer) -> None:
    """Drop queued records: what an `append` gave up on must not be sent later, in part and after another writer's newer records."""
    producer.purge()
    producer.flush(5)


def _refused(error: KafkaError) -> RejectedError | RetryableError | FatalError:
    if error.code() in _TOO_LARGE:
        return RejectedError("HUB-E2102", reason=error.str())
    if error.fatal():
        return FatalError("HUB-E2103", reason=error.str())
    return RetryableError("HUB-E2104", reason=error.str())
