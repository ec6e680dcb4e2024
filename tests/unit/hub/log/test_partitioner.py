"""One key, one partition: librdkafka as we set it, aiokafka and our own count agree."""

from __future__ import annotations

import random
from collections.abc import Callable

from aiokafka.partitioner import DefaultPartitioner
from confluent_kafka import KafkaError, Message

from hub.log.kafka_writers import producer
from hub.log.partitioner import partition_of

KEYS = 10_000


def keys() -> list[bytes]:
    """Case ids as they are, and bytes of every length up to 40, which meet every branch of the hash."""
    chosen = random.Random(3)
    ids = [f"opportunity/crm/订单-{n}".encode() for n in range(KEYS // 2)]
    return ids + [chosen.randbytes(1 + n % 40) for n in range(KEYS - len(ids))]


def by_librdkafka(wanted: list[bytes]) -> tuple[dict[bytes, int], int]:
    """Where our producer puts them, on the broker that librdkafka mocks inside the process; and how many partitions that has."""
    found: dict[bytes, int] = {}

    def told(error: KafkaError | None, message: Message) -> None:
        assert error is None
        key, partition = message.key(), message.partition()
        assert key is not None and partition is not None
        found[key if isinstance(key, bytes) else key.encode()] = partition

    sender = producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "log_level": 0})
    for key in wanted:
        sender.produce("mocked", b"v", key, on_delivery=told)
    assert sender.flush(30) == 0
    return found, len(sender.list_topics("mocked", timeout=10).topics["mocked"].partitions)


def test_every_client_agrees_on_ten_thousand_keys() -> None:
    wanted = keys()
    found, partitions = by_librdkafka(wanted)
    all_of_them = list(range(partitions))
    aiokafka: Callable[..., int] = DefaultPartitioner()
    assert partitions > 1
    assert len(found) == len(set(wanted))
    for key in wanted:
        assert found[key] == partition_of(key, partitions) == aiokafka(key, all_of_them, all_of_them), key


def test_twelve_partitions_are_filled_evenly() -> None:
    counts = [0] * 12
    for n in range(12_000):
        counts[partition_of(f"opportunity/crm/O-{n}".encode(), 12)] += 1
    assert min(counts) > 800
