"""`python -m tests.bench.trail [--rows N] [--events N] [--store NAME] [--looks N]`: what the trail costs, and what it answers in.

*Bytes* and *look-ups*: a trail of `--rows` made events, as the runner writes them; then names of each form, chosen at random,
by p50 and p95. *CPU*: `--events` events folded by the runners of all boards, with the trail and without it, in turn. *Bodies*:
single records by their places, of an embedded broker. Where others work on the machine CPU is the steadier figure. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import orjson
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.kit.projection import AnyProjection, EventRecord
from hub.kit.records import read_unchecked
from hub.log.event_log import Outgoing, Record
from hub.log.kafka_log import KafkaLog
from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.adding import add_rows
from hub.projector.runner import MAX_BATCH, Runner
from hub.projector.store import BoardStore
from hub.projector.trail import Trail
from hub.projector.trail_index import INDEX
from schemas.decoding import RecordedEvent
from schemas.envelope import derived_id
from schemas.topics import EVENTS, PARTITIONS
from tests.board_events import Deal, Relay
from tests.kafka_fixture import client_of, embedded
from tests.postgres_server import PostgresServer

A_CASE = 13
"""Events of a deal with a project and two tasks, each of which is asked for, made, taken up and done."""
CASES = 2000
"""Deals that are going on at once."""
TYPES = (
    "crm.opportunity.won",
    "work.task.requested",
    "work.project.created",
    "work.task.created",
    "work.task.completed",
)


def main() -> None:
    """Measure, and say it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.trail", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--looks", type=int, default=1000)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as parent:
        folder = Path(parent) / "a" / "b"  # what lies above is opened to the server's user
        folder.mkdir(parents=True)
        server = PostgresServer(folder, durable=True) if asked.store == "postgresql" else None
        if server is not None:
            server.start()
        try:
            told = measure(server, folder, asked)
        finally:
            if server is not None:
                server.stop()
    print(orjson.dumps(told).decode())


def measure(server: PostgresServer | None, folder: Path, asked: argparse.Namespace) -> dict[str, object]:
    """All figures."""
    store = BoardStore(server.database() if server is not None else f"sqlite:///{folder}/trail.sqlite")
    told: dict[str, object] = {"store": asked.store, "rows": asked.rows}
    told |= filled(store, asked.rows)
    told["look_ups_ms"] = looked_up(store, asked.rows, asked.looks)
    store.close()
    told |= {"cpu_us_an_event": folded(folder, asked.events), "bodies_ms": read(folder / "broker")}
    return told


def made(number: int) -> RecordedEvent:
    """The event of this number: many deals go on at once, each in its steps."""
    block, at = divmod(number, CASES * A_CASE)
    step, deal = divmod(at, CASES)
    case = f"opportunity/crm/O-{block * CASES + deal}"
    task = f"{block * CASES + deal}{step % 3}"
    subject = case if step < 3 else f"request/pm/{derived_id('command', task)}" if step < 6 else f"task/pm/{task}"
    return RecordedEvent(
        id=derived_id("bench", str(number)),
        source="/connectors/crm",
        type=TYPES[step % len(TYPES)],
        subject=subject,
        time="2026-11-20T02:00:00.000000Z",
        recordedtime="2026-11-20T02:00:00.000000Z",
        dataschema="urn:hub:x:1",
        partitionkey=case,
        correlationid=case,
        causationid=derived_id("bench", str(number - CASES)) if step else None,
    )


def filled(store: BoardStore, rows: int) -> dict[str, object]:
    """Write the rows as the runner does: bytes an event, and seconds of CPU for a million (this program's; with making them)."""
    store.prepare([INDEX])
    began, written = time.process_time(), 0.0
    for start in range(0, rows, MAX_BATCH):
        lying = [EventRecord(_record(number), made(number)) for number in range(start, min(start + MAX_BATCH, rows))]
        before = time.process_time()
        with store.writing() as conn:
            for table, found in zip(INDEX.tables, INDEX.rows(lying), strict=True):
                add_rows(conn, table, found)
        written += time.process_time() - before
        if start % 1_000_000 == 0:
            print(f"  {start:,} rows, {time.process_time() - began:.0f} s CPU", flush=True)
    return {"bytes_an_event": round(_size(store) / rows, 1), "rows_and_write_us": round(written / rows * 1e6, 2)}


def _record(number: int) -> Record:
    deal = number % CASES
    return Record(EVENTS.name, deal % PARTITIONS, number // PARTITIONS, b"", b"", 1.8e9 + number / 1000)


def _size(store: BoardStore) -> int:
    with store.writing() as conn:
        if conn.dialect.name == "postgresql":
            return int(conn.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
    with store.engine.connect() as conn:
        raw = conn.connection.dbapi_connection
        assert raw is not None
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(store.engine.url.database or "").stat().st_size


def looked_up(store: BoardStore, rows: int, looks: int) -> dict[str, tuple[float, float]]:
    """p50 and p95 in ms of each form."""
    chance = random.Random(5)  # a bench's own
    names = [made(chance.randrange(rows)) for _ in range(looks)]
    forms: dict[str, Callable[[Trail, RecordedEvent], object]] = {
        "id": lambda trail, event: trail.of_id(event.id),
        "start of an id": lambda trail, event: trail.starting(event.id[:9], 20),
        "case": lambda trail, event: trail.of_case(event.partitionkey),
        "object in its case": lambda trail, event: trail.of_case(event.partitionkey, event.subject),
        "cause": lambda trail, event: trail.following(event.id, event.partitionkey),
        "bare id": lambda trail, event: trail.named(event.partitionkey.rpartition("/")[2]),
        "last of a type": lambda trail, event: trail.last(event.type, None, 20),
    }
    told = {}
    for name, look in forms.items():
        taken = sorted(_timed(store, look, event) for event in names[: 5 if name == "last of a type" else looks])
        told[name] = (round(statistics.median(taken), 3), round(taken[int(len(taken) * 0.95)], 3))
        print(f"  {name}: p50 {told[name][0]} ms, p95 {told[name][1]} ms", flush=True)
    return told


def _timed(store: BoardStore, look: Callable[[Trail, RecordedEvent], object], event: RecordedEvent) -> float:
    with store.reading() as conn:
        trail = Trail(conn)
        began = time.perf_counter()
        look(trail, event)
        return (time.perf_counter() - began) * 1000


def folded(folder: Path, events: int) -> dict[str, float]:
    """µs of CPU an event: the folds of all boards, and the trail, on the same log."""
    relay = Relay(MemoryLog())
    for number in range(events // 7):
        relay.send(Deal(number, minutes=number).story())
    count = sum(relay.log.ends(EVENTS.name).values())
    costs: dict[str, list[float]] = {"boards": [], "trail": []}
    for turn in range(3):
        for name, kept in (("boards", list(registry.projections().values())), ("trail", [INDEX])):
            store = BoardStore(f"sqlite:///{folder}/{name}-{turn}.sqlite")
            store.prepare(registry.all_projections().values())
            costs[name].append(_caught_up(relay, store, kept) / count * 1e6)
            store.close()
    boards, trail = (round(min(costs[name]), 1) for name in ("boards", "trail"))
    decode = _decoded(relay) / count * 1e6
    told = {"boards": boards, "trail": trail, "of that decoding": round(decode, 1)}
    return {**told, "with the trail ÷ without": round((boards + trail) / boards, 3)}


def _caught_up(relay: Relay, store: BoardStore, kept: Sequence[AnyProjection]) -> float:
    began = time.process_time()
    for projection in kept:
        Runner(relay.log, store, projection).catch_up()
    return time.process_time() - began


def _decoded(relay: Relay) -> float:
    assert isinstance(relay.log, MemoryLog)
    records = [record for there in relay.log.records.values() for record in there]
    began = time.process_time()
    for record in records:
        read_unchecked(record)
    return time.process_time() - began


def read(folder: Path) -> dict[str, tuple[float, float]]:
    """p50 and p95 in ms of one record, and of a case of 13, from an embedded broker."""
    broker = embedded(folder)
    address = broker.start()
    try:
        log, ends = _log_of(address)
        places, chance, told = log.places(EVENTS.name), random.Random(7), {}
        places.at(0, [0])
        for name, many in (("one", 1), ("thirteen of a partition", A_CASE)):
            taken = sorted(_reads(ends, many, chance, places.at))
            told[name] = (round(statistics.median(taken), 2), round(taken[int(len(taken) * 0.95)], 2))
        places.close()
        return told
    finally:
        broker.stop()


def _log_of(address: str) -> tuple[KafkaLog, dict[int, int]]:
    admin = AdminClient(client_of(address))
    for topic in admin.create_topics([NewTopic(EVENTS.name, PARTITIONS, 1)], operation_timeout=20).values():
        topic.result(20)
    log = KafkaLog(client_of(address))
    writer = log.writer()
    for number in range(400):
        writer.append([Outgoing(EVENTS.name, b"k", b"x" * 675, number % PARTITIONS)] * 20)
    writer.close()
    return log, log.ends(EVENTS.name)


def _reads(
    ends: dict[int, int], many: int, chance: random.Random, at: Callable[[int, list[int]], dict[int, Record]]
) -> Iterator[float]:
    for _ in range(200):
        partition = chance.randrange(PARTITIONS)
        offsets = chance.sample(range(ends[partition]), many)
        began = time.perf_counter()
        assert len(at(partition, offsets)) == many
        yield (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
