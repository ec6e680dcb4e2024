"""Appending to a Kafka broker, by librdkafka's idempotent producers: a few records at once, thousands by the chunk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from hub.errors import FatalError, RejectedError, RetryableError
from hub.log.event_log import LARGEST, LogWriter, Outgoing
from hub.runtime.failpoints import failpoint

MANY = 200
"""Records from which on an append is a large one."""
GATHER_MS = 3
_TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}

Told = Callable[[KafkaError | None, Message], None]


def producer(client: Mapping[str, Any], **more: Any) -> Producer:
    """librdkafka's producer as every part of the hub must set it: idempotent, acknowledged by all, murmur2."""
    return Producer(
        {
            **client,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": 0,
            "compression.type": "lz4",
            "message.max.bytes": LARGEST,
            "delivery.timeout.ms": 120_000,
            "queue.buffering.max.messages": 1_000_000,
            "log.connection.close": False,
            "log_level": 2,  # not each failed attempt to connect: an outage is told once, by who meets it
            **more,
        }
    )


class KafkaWriter:
    """Appends at once; any thread may append, and waits for its own records only, by a report for each."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self._closed = False
        self._poller = threading.Thread(target=self._poll, name="log-writer", daemon=True)
        self._poller.start()

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        waiting = _Deliveries(len(records))
        _append(self.producer, records, waiting.told, lambda: waiting.settle(timeout))

    def _poll(self) -> None:
        while not self._closed:
            self.producer.poll(0.2)

    def close(self) -> None:
        _give_up(self.producer)
        self._closed = True
        self._poller.join(5)


class FlushedWriter:
    """Appends many, for one thread at a time: records that failed are reported, and that no other is left is what a flush says.

    A report for each would cost as much as all else that is done to send it. A flush looks every 10 ms whether it is done.
    """

    def __init__(self, client: Mapping[str, Any]) -> None:
        self._failed: list[KafkaError] = []
        self._closed = False
        # Without a linger, librdkafka sends the first records of a chunk alone, each in a request of its own.
        settings = {"linger.ms": GATHER_MS, "delivery.report.only.error": True, "on_delivery": self._told}
        self.producer = producer(client, **settings)

    def _told(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._failed.append(error)

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        _append(self.producer, records, None, lambda: self._settle(timeout))

    def _settle(self, timeout: float) -> None:
        missing = self.producer.flush(timeout)
        if self._failed:
            raise _refused(self._failed[0])
        if missing or self._closed:  # what was purged is missing no longer
            raise RetryableError("HUB-E2101", missing=missing)

    def close(self) -> None:
        self._closed = True
        _give_up(self.producer)


class GatheringWriter:
    """Appends a few records at once, as people wait for them, and many by a writer that nobody else uses meanwhile.

    Records of one thread keep their order: each of its appends has ended before the next, and a writer that has failed is closed.
    """

    def __init__(self, prompt: LogWriter, make: Callable[[], LogWriter]) -> None:
        self._prompt, self._make = prompt, make
        self._idle: list[LogWriter] = []
        self._busy: set[LogWriter] = set()

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        if len(records) < MANY:
            self._prompt.append(records, timeout)
            return
        writer = self._taken()
        try:
            writer.append(records, timeout)
        except BaseException:
            writer.close()
            raise
        else:
            self._idle.append(writer)
        finally:
            self._busy.discard(writer)

    def _taken(self) -> LogWriter:
        try:
            writer = self._idle.pop()
        except IndexError:  # as many as there are threads that append at once
            writer = self._make()
        self._busy.add(writer)
        return writer

    def close(self) -> None:
        for writer in (self._prompt, *self._idle, *self._busy):
            writer.close()


class _Deliveries:
    """The delivery reports of one `append`; they come on the poller's thread."""

    def __init__(self, expected: int) -> None:
        self.missing = expected
        self.failed: KafkaError | None = None
        self.all_told = threading.Event()
        if expected == 0:
            self.all_told.set()

    def told(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self.failed is None:
            self.failed = error
        self.missing -= 1
        if self.missing == 0:
            self.all_told.set()

    def settle(self, timeout: float) -> None:
        told = self.all_told.wait(timeout)
        if self.failed is not None:
            raise _refused(self.failed)
        if not told:
            raise RetryableError("HUB-E2101", missing=self.missing)


def _append(producer: Producer, records: Sequence[Outgoing], told: Told | None, settle: Callable[[], None]) -> None:
    failpoint("log.before-append")
    for record in records:
        _send(producer, record, told)
    failpoint("log.sent")
    settle()
    failpoint("log.appended")


def _send(producer: Producer, record: Outgoing, told: Told | None) -> None:
    partition = -1 if record.partition is None else record.partition  # -1: by the key
    while True:
        try:
            producer.produce(record.topic, record.value, record.key, partition, told)
            return
        except BufferError:
            time.sleep(0.01)  # librdkafka's own threads, or the poller, are emptying the queue
        except KafkaException as error:
            raise _refused(error.args[0]) from error


def _give_up(producer: Producer) -> None:
    """What an `append` gave up on must not be sent later, in part and behind what another writer has sent since."""
    producer.purge()
    producer.flush(5)


def _refused(error: KafkaError) -> RejectedError | RetryableError | FatalError:
    if error.code() in _TOO_LARGE:
        return RejectedError("HUB-E2102", reason=error.str())
    if error.fatal():
        return FatalError("HUB-E2103", reason=error.str())
    return RetryableError("HUB-E2104", reason=error.str())
