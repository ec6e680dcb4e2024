"""One run of a contender: fresh topics, a loaded log, the program, and what it wrote, counted exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from confluent_kafka import Consumer, ConsumerGroupState, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.log.kafka_log import KafkaLog
from tests.bench.contender import Contender
from tests.bench.programs import Programs
from tests.bench.won2task import Load, append, partitions

MOST_SECONDS = 240.0
LOG_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}


@dataclass(frozen=True)
class Result:
    """Events a second by the broker's clock, CPU of the program per event, its largest size."""

    rate: float
    cpu_us: float
    rss_mb: float


def run(bootstrap: str, contender: Contender, given: Load, folder: Path) -> Result:
    """Run it once; raises AssertionError unless every output is there, and none twice.

    The events are there before a contender starts. Only where several members share them they come once all have joined: who was
    first would otherwise have done half the work before the others had their part.
    """
    log = KafkaLog({"bootstrap.servers": bootstrap})
    admin = AdminClient({"bootstrap.servers": bootstrap})
    _fresh_topics(admin, contender)
    if contender.cores == 1:
        append(bootstrap, contender.events, given)
    folder.mkdir(parents=True)
    commands = contender.programs(bootstrap, folder)
    programs = Programs(commands, contender.environment(bootstrap, folder), folder)
    try:
        if contender.cores > 1:
            _until(lambda: _has_settled(admin, contender), f"{contender.name} shares the partitions", MOST_SECONDS)
            append(bootstrap, contender.events, given)
        cpu_us = _watch(log, contender, given, programs)
        rss_mb = programs.peak_mb()
    finally:
        programs.stop()
    return Result(_checked_rate(log, contender, given), cpu_us, rss_mb)


def _has_settled(admin: AdminClient, contender: Contender) -> bool:
    """Has the group as many members as the contender works on cores, each with its part?"""
    try:
        group = admin.describe_consumer_groups([contender.group], request_timeout=5)[contender.group].result()
    except KafkaException:  # the broker makes the groups' topic when the first group of all is asked for
        return False
    parts = [len(member.assignment.topic_partitions) for member in group.members]
    return bool(group.state == ConsumerGroupState.STABLE and len(parts) == contender.cores and all(parts))


def _fresh_topics(admin: AdminClient, contender: Contender) -> None:
    """Delete what an earlier round left, and make all anew."""
    outputs = {contender.views: LOG_APPEND_TIME, contender.commands: LOG_APPEND_TIME}
    wanted = {contender.events: {}, **outputs, **contender.more}
    there = admin.list_topics(timeout=20).topics
    old = [name for name in wanted if name in there]
    if old:
        for deleted in admin.delete_topics(old, operation_timeout=30).values():
            deleted.result(60)
        _until(lambda: not set(old) & set(admin.list_topics(timeout=20).topics), "old topics are gone")
        _until(lambda: _is_forgotten(admin, contender.group), "the old group is gone")
    asked = [NewTopic(name, partitions(), 1, config=dict(settings)) for name, settings in wanted.items()]
    for made in admin.create_topics(asked, operation_timeout=30).values():
        made.result(60)


def _is_forgotten(admin: AdminClient, group: str) -> bool:
    try:
        admin.delete_consumer_groups([group])[group].result(20)
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND)
    return True


def _watch(log: KafkaLog, contender: Contender, given: Load, programs: Programs) -> float:
    """Wait until all is written; CPU µs an event from the end of the warm-up on."""
    wanted = _wanted(contender, given)
    first: tuple[int, float] | None = None
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        assert (code := programs.ended()) is None, f"{contender.name} ended with {code}"
        assert time.monotonic() < deadline, f"{contender.name} took longer than {MOST_SECONDS:.0f} s"
        views, cpu = sum(log.ends(contender.views).values()), programs.cpu_seconds()
        if first is None and views >= max(1, contender.warm_up * wanted[0]):
            first = (views, cpu)
        if _is_all(log, contender, wanted, views):
            assert first is not None
            return (cpu - first[1]) / max(1, wanted[0] - first[0]) * 1e6
        time.sleep(0.1)


def _wanted(contender: Contender, given: Load) -> tuple[int, int]:
    """How many views and commands must come."""
    return (len(given.records), 0) if contender.passes_through else (given.views, given.commands)


def _is_all(log: KafkaLog, contender: Contender, wanted: tuple[int, int], views: int) -> bool:
    """Offsets tell it cheaply. Of a contender with transactions they count markers too, so the records have the last word."""
    if views < wanted[0] or sum(log.ends(contender.commands).values()) < wanted[1]:
        return False
    return _count(log, contender.views) >= wanted[0] and _count(log, contender.commands) >= wanted[1]


def _checked_rate(log: KafkaLog, contender: Contender, given: Load) -> float:
    wanted = _wanted(contender, given)
    views = sorted(record.timestamp()[1] / 1000 for record in _all(log, contender.views))
    commands = [record.value() or b"" for record in _all(log, contender.commands)]
    ids = [orjson.loads(value)["id"] for value in commands if contender.is_command(value)]
    assert len(views) == wanted[0], f"{contender.name}: {len(views)} views where {wanted[0]} are due"
    assert len(ids) == len(set(ids)) == wanted[1], (
        f"{contender.name}: {len(ids)} commands, {len(set(ids))} of them different, where {wanted[1]} are due"
    )
    skipped = int(len(views) * contender.warm_up)
    return (len(views) - skipped) / max(views[-1] - views[skipped], 0.001)


def _count(log: KafkaLog, topic: str) -> int:
    return sum(1 for _ in _all(log, topic))


def _all(log: KafkaLog, topic: str) -> Iterator[Message]:
    """Every committed record of a topic; it may end with a transaction's marker, so the broker tells where its end is."""
    reading = {"group.id": "bench", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer({**log.client, **reading, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions())])
    ended = 0
    try:
        while ended < partitions():
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def _until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
