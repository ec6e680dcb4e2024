"""One suite over every event log: what `hub/log/event_log.py` promises holds in memory as on a broker."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.errors import FatalError, RejectedError, RetryableError
from hub.log.event_log import MAX_RECORD_BYTES, EventLog, Outgoing, Reader, Record, read_to_end
from hub.log.kafka_log import KafkaLog
from hub.log.memory_log import MemoryLog
from hub.log.partitioner import partition_of
from schemas.topics import PARTITIONS
from tests.kafka_fixture import client_of


@dataclass
class Bench:
    """A log with one empty topic of this test's own."""

    log: EventLog
    topic: str = field(default_factory=lambda: f"contract-{uuid.uuid4().hex[:8]}")
    closing: list[Callable[[], None]] = field(default_factory=list)

    def append(self, *values: bytes, partition: int | None = 0, key: bytes = b"k") -> None:
        writer = self.log.writer()
        writer.append([Outgoing(self.topic, key, value, partition) for value in values])
        writer.close()

    def reader(self, **positions: int) -> Reader:
        """A reader from `p0=3, p1=0` on."""
        made = self.log.reader(self.topic, {int(name[1:]): offset for name, offset in positions.items()})
        self.closing.append(made.close)
        return made

    def all(self, positions: dict[int, int], limit: int = 2000) -> list[Record]:
        return [record for batch in read_to_end(self.log, self.topic, positions, limit=limit) for record in batch]


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.broker)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each log in its turn."""
    made = Bench(MemoryLog()) if request.param == "memory" else on_broker(request.getfixturevalue("kafka"))
    yield made
    for close in made.closing:
        close()


def on_broker(bootstrap: str) -> Bench:
    made = Bench(KafkaLog(client_of(bootstrap)))
    admin = AdminClient(client_of(bootstrap))
    for topic in admin.create_topics([NewTopic(made.topic, PARTITIONS, 1)], operation_timeout=20).values():
        topic.result(timeout=20)
    return made


def read(reader: Reader, count: int) -> list[Record]:
    """Read until there are so many; they have to come within 20 seconds."""
    found: list[Record] = []
    deadline = time.monotonic() + 20
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count}"
        found += reader.read(count - len(found), 0.5)
    return found


def test_what_was_appended_is_read_in_its_order(bench: Bench) -> None:
    values = [b"%d" % n for n in range(500)]
    bench.append(*values)
    records = read(bench.reader(p0=0), 500)
    assert [record.value for record in records] == values
    assert [record.offset for record in records] == list(range(500))
    assert {(record.topic, record.partition, record.key) for record in records} == {(bench.topic, 0, b"k")}


def test_a_key_without_a_partition_goes_where_every_kafka_client_puts_it(bench: Bench) -> None:
    keys = [f"opportunity/crm/O-{n}".encode() for n in range(300)]
    writer = bench.log.writer()
    writer.append([Outgoing(bench.topic, key, b"v") for key in keys])
    writer.close()
    found = bench.all(dict.fromkeys(range(PARTITIONS), 0))
    assert {record.key: record.partition for record in found} == {key: partition_of(key, PARTITIONS) for key in keys}


def test_a_reader_starts_where_it_is_told_and_sees_its_partitions_only(bench: Bench) -> None:
    bench.append(b"a", b"b", b"c", partition=0)
    bench.append(b"x", partition=1)
    bench.append(b"y", b"z", partition=2)
    found = read(bench.reader(p0=2, p2=1), 2)
    assert sorted(record.value or b"" for record in found) == [b"c", b"z"]


def test_a_read_gives_no_more_than_its_limit_and_the_next_goes_on_behind(bench: Bench) -> None:
    bench.append(b"a", b"b", b"c")
    reader = bench.reader(p0=0)
    assert [record.value for record in read(reader, 1)] == [b"a"]
    assert len(reader.read(1, 5)) == 1
    assert [record.value for record in reader.read(10, 5)] == [b"c"]


def test_a_read_of_nothing_comes_back_empty_when_its_time_is_over(bench: Bench) -> None:
    reader = bench.reader(p0=0)
    assert reader.read(10, 0.05) == []


def test_a_read_that_waits_gets_what_is_appended_meanwhile(bench: Bench) -> None:
    reader = bench.reader(p0=0)
    reader.read(1, 0.01)
    thread = threading.Timer(0.1, bench.append, [b"late"])
    thread.start()
    began = time.monotonic()
    found = reader.read(10, 20)
    thread.join()
    assert [record.value for record in found] == [b"late"]
    assert time.monotonic() - began < 10


def test_a_tombstone_is_kept_as_none(bench: Bench) -> None:
    writer = bench.log.writer()
    writer.append([Outgoing(bench.topic, b"k", None, 3)])
    writer.close()
    assert [record.value for record in read(bench.reader(p3=0), 1)] == [None]


def test_appending_nothing_returns_at_once(bench: Bench) -> None:
    writer = bench.log.writer()
    writer.append([])
    writer.close()
    assert set(bench.log.ends(bench.topic).values()) == {0}


def test_starts_and_ends_name_every_partition(bench: Bench) -> None:
    bench.append(b"a", b"b", partition=4)
    assert bench.log.starts(bench.topic) == dict.fromkeys(range(PARTITIONS), 0)
    assert bench.log.ends(bench.topic) == {**dict.fromkeys(range(PARTITIONS), 0), 4: 2}


def test_of_two_writers_each_keeps_its_own_order(bench: Bench) -> None:
    def write(name: str) -> None:
        writer = bench.log.writer()
        for n in range(20):
            writer.append([Outgoing(bench.topic, b"k", f"{name}{n}".encode(), 0)])
        writer.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = [(record.value or b"").decode() for record in bench.all({0: 0})]
    for name in "ab":
        assert [value for value in values if value.startswith(name)] == [f"{name}{n}" for n in range(20)]


def test_several_threads_may_append_by_one_writer_and_each_waits_for_its_own(bench: Bench) -> None:
    writer = bench.log.writer()

    def write(partition: int) -> None:
        for n in range(20):
            writer.append([Outgoing(bench.topic, b"k", b"%d" % n, partition)])
            assert bench.log.ends(bench.topic)[partition] == n + 1

    threads = [threading.Thread(target=write, args=(partition,)) for partition in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert bench.log.ends(bench.topic)[0] == bench.log.ends(bench.topic)[1] == 20


def test_a_record_that_is_too_large_is_rejected(bench: Bench) -> None:
    with pytest.raises(RejectedError, match="HUB-E2102"):
        bench.append(b"x" * (MAX_RECORD_BYTES + 1))
    assert bench.log.ends(bench.topic)[0] == 0


def test_reading_to_the_end_ends_where_the_log_ended_when_it_began(bench: Bench) -> None:
    bench.append(b"a", b"b", partition=0)
    bench.append(b"c", partition=1)
    seen = []
    for batch in read_to_end(bench.log, bench.topic, {0: 0, 1: 0, 2: 0}, limit=1):
        bench.append(b"more", partition=0)
        seen += [record.value for record in batch]
    assert sorted(value or b"" for value in seen) == [b"a", b"b", b"c"]


def test_reading_to_the_end_does_not_wait_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hub.log.event_log.SILENCE_TIMEOUT_S", 1)
    bench.append(b"a", partition=0)
    ends = {**bench.log.ends(bench.topic), 1: 1}  # there is one, and nobody gives it
    monkeypatch.setattr(type(bench.log), "ends", lambda _log, _topic: ends)
    with pytest.raises(RetryableError, match="HUB-E2104"):
        bench.all({0: 0, 1: 0})


def test_reading_to_the_end_from_the_end_gives_nothing(bench: Bench) -> None:
    bench.append(b"a", b"b", partition=0)
    assert bench.all({0: 2}) == []
    assert bench.all({}) == []
    assert [record.value for record in bench.all({0: 1, 5: 0})] == [b"b"]


@pytest.mark.broker
def test_an_offset_that_is_no_longer_kept_stops_the_reader(kafka: str) -> None:
    bench = on_broker(kafka)
    bench.append(b"a", b"b", b"c")
    admin = AdminClient(client_of(kafka))
    for trimmed in admin.delete_records([TopicPartition(bench.topic, 0, 2)]).values():
        trimmed.result(timeout=20)
    assert bench.log.starts(bench.topic)[0] == 2
    reader = bench.reader(p0=0)
    with pytest.raises(FatalError, match="HUB-E2105"):
        read(reader, 1)
    reader.close()


def test_a_broker_that_is_away_is_told_of_as_worth_another_try() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        log = KafkaLog({"bootstrap.servers": f"127.0.0.1:{nobody.getsockname()[1]}", "log_level": 0})
        writer = log.writer()
        with pytest.raises(RetryableError, match="HUB-E2101"):
            writer.append([Outgoing("any", b"k", b"v")], timeout=0.2)
        writer.close()


def test_single_records_are_read_by_their_places(bench: Bench) -> None:
    for start in range(0, 60, 20):  # several batches
        bench.append(*(b"%d" % n for n in range(start, start + 20)))
    bench.append(b"x", partition=3)
    places = bench.log.places(bench.topic)
    bench.closing.append(places.close)
    wanted = (59, 0, 7, 8, 41, 7)
    found = places.at(0, wanted)
    assert {offset: record.value for offset, record in found.items()} == {n: b"%d" % n for n in wanted}
    assert {(record.topic, record.partition, record.key) for record in found.values()} == {(bench.topic, 0, b"k")}
    assert [record.value for record in places.at(3, [0]).values()] == [b"x"]
    assert places.at(0, []) == places.at(0, [60, 10**12]) == places.at(5, [0]) == {}
    bench.append(b"later")
    assert [record.value for record in places.at(0, [60]).values()] == [b"later"]


def test_several_threads_read_by_places(bench: Bench) -> None:
    bench.append(*(b"%d" % n for n in range(50)))
    places, wrong = bench.log.places(bench.topic), list[int]()
    bench.closing.append(places.close)

    def look(first: int) -> None:
        wrong.extend(n for n in range(first, 50, 4) if places.at(0, [n])[n].value != b"%d" % n)

    threads = [threading.Thread(target=look, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_places_of_a_log_that_is_away_say_so() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = {"bootstrap.servers": f"127.0.0.1:{nobody.getsockname()[1]}", "log_level": 0}
        places = KafkaLog(settings).places("any")
        with pytest.raises(RetryableError, match="HUB-E2104"):
            places.at(0, [1])
        places.close()


@pytest.mark.broker
def test_how_many_brokers_keep_a_record_is_known(kafka: str) -> None:
    assert KafkaLog(client_of(kafka)).copies(on_broker(kafka).topic) == 1
    assert MemoryLog().copies("t") > 1
