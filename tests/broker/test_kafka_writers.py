"""The worker's writer: large appends go by producers of their own, and nothing that `Writer` promises is lost by it."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.errors import RejectedError, RetryableError
from hub.log.event_log import MAX_RECORD_BYTES, Outgoing, read_to_end
from hub.log.kafka_log import KafkaLog
from hub.log.kafka_writers import LARGE_APPEND_RECORDS, FlushedWriter, GatheringWriter, KafkaWriter, producer
from hub.ops.embedded_kafka import EmbeddedKafka
from schemas.topics import PARTITIONS
from tests.broker.program import until
from tests.kafka_fixture import client_of


@dataclass(eq=False)
class Noted:
    """A writer that notes what it is asked, and fails or waits as it is told."""

    sizes: list[int] = field(default_factory=list)
    closed: bool = False
    fails: bool = False
    held: threading.Event | None = None

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        self.sizes.append(len(records))
        if self.held is not None:
            assert self.held.wait(30)
        if self.fails:
            raise RetryableError("HUB-E2101", missing=1)

    def close(self) -> None:
        self.closed = True


@dataclass
class Made:
    """A gathering writer whose parts are noted."""

    prompt: Noted = field(default_factory=Noted)
    large: list[Noted] = field(default_factory=list)
    next: list[Noted] = field(default_factory=list)

    def writer(self) -> GatheringWriter:
        return GatheringWriter(self.prompt, self._make)

    def _make(self) -> Noted:
        self.large.append(self.next.pop(0) if self.next else Noted())
        return self.large[-1]


def records(topic: str, count: int, partition: int = 0, first: int = 0) -> list[Outgoing]:
    return [Outgoing(topic, b"k", b"%d" % n, partition) for n in range(first, first + count)]


def test_large_appends_go_by_a_writer_of_their_own_again_and_again() -> None:
    made = Made()
    writer = made.writer()
    for count in (0, 1, LARGE_APPEND_RECORDS - 1, LARGE_APPEND_RECORDS, 5000):
        writer.append(records("t", count))
    assert made.prompt.sizes == [0, 1, LARGE_APPEND_RECORDS - 1]
    assert [each.sizes for each in made.large] == [[LARGE_APPEND_RECORDS, 5000]]
    writer.close()
    assert [each.closed for each in (made.prompt, *made.large)] == [True, True]


def test_two_threads_at_once_never_share_one() -> None:
    held = threading.Event()
    made = Made(next=[Noted(held=held)])
    writer = made.writer()
    thread = threading.Thread(target=writer.append, args=(records("t", LARGE_APPEND_RECORDS),))
    thread.start()
    until(lambda: bool(made.large and made.large[0].sizes), "the first is at work")
    writer.append(records("t", LARGE_APPEND_RECORDS + 1))
    assert [each.sizes for each in made.large] == [[LARGE_APPEND_RECORDS], [LARGE_APPEND_RECORDS + 1]]
    writer.close()
    assert [each.closed for each in made.large] == [True, True]
    held.set()
    thread.join(30)


def test_one_that_has_failed_is_closed_and_not_used_again() -> None:
    made = Made(next=[Noted(fails=True)])
    writer = made.writer()
    with pytest.raises(RetryableError):
        writer.append(records("t", LARGE_APPEND_RECORDS))
    writer.append(records("t", LARGE_APPEND_RECORDS))
    assert [(each.sizes, each.closed) for each in made.large] == [
        ([LARGE_APPEND_RECORDS], True),
        ([LARGE_APPEND_RECORDS], False),
    ]


def new_topic(bootstrap: str, **settings: str) -> str:
    name = f"writers-{uuid.uuid4().hex[:8]}"
    admin = AdminClient(client_of(bootstrap))
    asked = NewTopic(name, PARTITIONS, 1, config={key.replace("_", "."): value for key, value in settings.items()})
    admin.create_topics([asked], operation_timeout=20)[name].result(timeout=20)
    return name


def held(log: KafkaLog, topic: str) -> dict[int, list[int]]:
    """The numbers that each partition has, in its order."""
    found: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
    for batch in read_to_end(log, topic, dict.fromkeys(range(PARTITIONS), 0)):
        for record in batch:
            found[record.partition].append(int(record.value or b""))
    return found


@pytest.mark.broker
def test_threads_keep_their_order_over_small_and_large_appends(kafka: str) -> None:
    log, topic = KafkaLog(client_of(kafka)), new_topic(kafka)
    writer = log.gathering_writer()
    sizes = (1, 300, 2, LARGE_APPEND_RECORDS, LARGE_APPEND_RECORDS - 1, 1000, 1)

    def run(partition: int) -> None:
        for at, size in enumerate(sizes):
            writer.append(records(topic, size, partition, sum(sizes[:at])))

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    writer.close()
    assert held(log, topic) == {partition: list(range(sum(sizes))) for partition in range(PARTITIONS)}


@pytest.mark.broker
def test_a_record_that_no_log_takes_is_refused(kafka: str) -> None:
    topic, writer = new_topic(kafka), KafkaLog(client_of(kafka)).gathering_writer()
    with pytest.raises(RejectedError) as caught:
        writer.append([*records(topic, LARGE_APPEND_RECORDS), Outgoing(topic, b"k", b"x" * (MAX_RECORD_BYTES + 1))])
    assert caught.value.code == "HUB-E2102"
    writer.append(records(topic, LARGE_APPEND_RECORDS))
    writer.close()


@pytest.mark.broker
@pytest.mark.parametrize("flushed", [True, False])
def test_records_that_the_broker_refuses_are_told_of(kafka: str, flushed: bool) -> None:
    client = client_of(kafka)
    topic = new_topic(kafka, max_message_bytes="1000")
    writer = FlushedWriter(client) if flushed else KafkaWriter(producer(client))
    with pytest.raises(RejectedError) as caught:
        writer.append([*records(topic, LARGE_APPEND_RECORDS), Outgoing(topic, b"k", os.urandom(5000), 1)])
    assert caught.value.code == "HUB-E2102"
    writer.close()


@pytest.mark.broker
def test_what_was_appended_is_there_though_the_broker_is_killed_amid_it(broker: EmbeddedKafka) -> None:
    client = client_of(broker.bootstrap)
    log, topic = KafkaLog(client), new_topic(broker.bootstrap)
    writer, told = FlushedWriter(client), list[int]()

    def run() -> None:
        for at in range(6):
            writer.append([each for part in range(PARTITIONS) for each in records(topic, 3000, part, at * 3000)], 130)
            told.append(at)

    thread = threading.Thread(target=run)
    thread.start()
    for seen in (1, 3):
        until(lambda: len(told) >= seen, "some appends end", 60)  # noqa: B023  # asked at once
        os.kill(broker.pid, signal.SIGKILL)
        broker.wait()
        broker.start()
    thread.join(120)
    assert told == list(range(6))
    writer.close()
    assert held(log, topic) == {partition: list(range(6 * 3000)) for partition in range(PARTITIONS)}


@pytest.mark.broker
def test_an_append_that_is_closed_or_out_of_time_does_not_say_that_all_is_there(broker: EmbeddedKafka) -> None:
    topic, writer = new_topic(broker.bootstrap), FlushedWriter(client_of(broker.bootstrap))
    writer.append(records(topic, LARGE_APPEND_RECORDS))
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RetryableError) as late:
            writer.append(records(topic, LARGE_APPEND_RECORDS), 0.5)
        assert (late.value.code, late.value.seen["missing"] > 0) == ("HUB-E2101", True)
        caught = list[BaseException]()
        thread = threading.Thread(target=lambda: _noting(caught, writer, records(topic, LARGE_APPEND_RECORDS)))
        thread.start()
        time.sleep(0.2)  # either order is right: closed before it begins, or amid it
        writer.close()
        thread.join(30)
        assert [type(each) for each in caught] == [RetryableError]
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def _noting(caught: list[BaseException], writer: FlushedWriter, given: Sequence[Outgoing]) -> None:
    try:
        writer.append(given, 60)
    except RetryableError as error:
        caught.append(error)
