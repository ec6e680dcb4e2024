"""The worker's writer: large appends gather in a producer of their own, and nothing that `Writer` promises is lost by it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.errors import RejectedError
from hub.event_log import LARGEST, Outgoing, read_to_end
from hub.kafka_log import MANY, GatheringWriter, KafkaLog
from schemas.topics import PARTITIONS


@dataclass
class Noted:
    """A writer that notes what it is asked."""

    sizes: list[int] = field(default_factory=list)
    closed: bool = False

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        self.sizes.append(len(records))

    def close(self) -> None:
        self.closed = True


def records(topic: str, count: int, partition: int = 0) -> list[Outgoing]:
    return [Outgoing(topic, b"k", b"%d" % n, partition) for n in range(count)]


def test_only_large_appends_linger() -> None:
    prompt, lingering = Noted(), Noted()
    writer = GatheringWriter(prompt, lingering)
    for count in (0, 1, MANY - 1, MANY, 5000):
        writer.append(records("t", count))
    assert (prompt.sizes, lingering.sizes) == ([0, 1, MANY - 1], [MANY, 5000])
    writer.close()
    assert (prompt.closed, lingering.closed) == (True, True)


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"gathering-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(name, PARTITIONS, 1)], operation_timeout=20)[name].result(timeout=20)
    return name


@pytest.mark.broker
def test_threads_keep_their_order_over_small_and_large_appends(kafka: str, topic: str) -> None:
    log = KafkaLog({"bootstrap.servers": kafka})
    writer = log.gathering_writer()

    def run(partition: int) -> None:
        at = 0
        for size in (1, 300, 2, MANY, MANY - 1, 1000, 1):
            writer.append([Outgoing(topic, b"k", b"%d" % n, partition) for n in range(at, at + size)])
            at += size

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(PARTITIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    writer.close()
    found: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
    for batch in read_to_end(log, topic, dict.fromkeys(range(PARTITIONS), 0)):
        for record in batch:
            found[record.partition].append(int(record.value or b""))
    assert found == {partition: list(range(1304 + 2 * MANY - 1)) for partition in range(PARTITIONS)}


@pytest.mark.broker
def test_a_large_append_that_the_log_refuses_says_so(kafka: str, topic: str) -> None:
    writer = KafkaLog({"bootstrap.servers": kafka}).gathering_writer()
    with pytest.raises(RejectedError) as caught:
        writer.append([*records(topic, MANY), Outgoing(topic, b"k", b"x" * (LARGEST + 1))])
    assert caught.value.code == "HUB-E2102"
    writer.append(records(topic, MANY))
    writer.close()
