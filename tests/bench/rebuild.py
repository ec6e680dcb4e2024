"""`python -m tests.bench.rebuild [--events N] [--store sqlite|postgresql]`: how long a board takes to be built from its log.

The board of deals from 1,000,000 events of 100,000 deals on an embedded broker, by what `hub rebuild` calls. The yardstick of the
same round is a loop by hand that reads the log, checks each event and keeps the last one of each deal: it folds and stores nothing.
`verify` is `hub rebuild --verify` of that board. CPU is this program's and PostgreSQL's, not the broker's. The last line is JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from hub.log.event_log import Record, read_to_end
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.projector.rebuild import rebuild
from hub.projector.store import BoardStore
from projections.deals.fold import PROJECTION
from schemas.envelope import Event
from schemas.registry import event_spec
from schemas.topics import EVENTS, PARTITIONS
from tests.bench.boards import cpu_seconds
from tests.bench.deal_log import append_deals
from tests.bench.won2task import EVENTS_OF_A_DEAL
from tests.kafka_fixture import client_of, embedded
from tests.postgres_server import PostgresServer

Costs = dict[str, tuple[float, float]]
"""Seconds by the clock and of CPU."""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.rebuild", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as parent:
        folder = Path(parent) / "a" / "b"  # what lies above is opened to the server's user
        folder.mkdir(parents=True)
        broker = embedded(Path(parent) / "kafka")
        server = PostgresServer(folder, durable=True) if asked.store == "postgresql" else None
        try:
            log = KafkaLog(client_of(broker.start()))
            ensure_topics(log.client)
            append_deals(log, asked.events // EVENTS_OF_A_DEAL)
            if server is not None:
                server.start()
            rounds = [
                one_round(log, _new_store(server, folder, at), server, asked.events) for at in range(asked.rounds)
            ]
        finally:
            broker.stop()
            if server is not None:
                server.stop()
    print(orjson.dumps(summary(asked.events, rounds)).decode())
    return 0


def _new_store(server: PostgresServer | None, folder: Path, number: int) -> BoardStore:
    store = BoardStore(server.database() if server is not None else f"sqlite:///{folder}/boards-{number}.sqlite")
    store.prepare()
    return store


def one_round(log: KafkaLog, store: BoardStore, server: PostgresServer | None, events: int) -> Costs:
    """The rebuild, its verification, and the loop; the board is checked to be whole."""

    def built() -> None:
        told = rebuild(log, store, PROJECTION)
        assert (told.records, told.rows) == (events, events // EVENTS_OF_A_DEAL), told

    def verified() -> None:
        assert rebuild(log, store, PROJECTION, verify=True).equal

    ways: Mapping[str, Callable[[], None]] = {"rebuild": built, "verify": verified, "loop": lambda: loop(log, events)}
    costs: Costs = {}
    for name, way in ways.items():
        began, cpu = time.perf_counter(), _cpu(server)
        way()
        costs[name] = time.perf_counter() - began, _cpu(server) - cpu
        said = f"{costs[name][0]:.1f} s, {costs[name][1] / events * 1e6:.1f} µs CPU an event"
        print(f"{name}: {said}", file=sys.stderr, flush=True)
    store.close()
    return costs


def loop(log: KafkaLog, events: int) -> None:
    """The log read by hand."""
    newest: dict[str, Event] = {}
    seen = 0
    for batch in read_to_end(log, EVENTS.name, dict.fromkeys(range(PARTITIONS), 0)):
        for record in batch:
            event = _checked(record)
            newest[event.subject] = event
        seen += len(batch)
    assert seen == events


def _checked(record: Record) -> Event:
    event = Event.from_json(record.value or b"")
    event_spec(event.type).model.model_validate(event.data)
    return event


def _cpu(server: PostgresServer | None) -> float:
    return time.process_time() + (0.0 if server is None else cpu_seconds(server))


def summary(events: int, rounds: list[Costs]) -> dict[str, Any]:
    """Medians, and ratios round by round."""
    return {
        "events": events,
        "seconds": {name: round(statistics.median(costs[name][0] for costs in rounds), 1) for name in rounds[0]},
        "cpu_us_per_event": {
            name: round(statistics.median(costs[name][1] for costs in rounds) / events * 1e6, 1) for name in rounds[0]
        },
        "rebuild_of_loop": [round(costs["rebuild"][0] / costs["loop"][0], 2) for costs in rounds],
        "rebuild_cpu_of_loop": [round(costs["rebuild"][1] / costs["loop"][1], 2) for costs in rounds],
    }


if __name__ == "__main__":
    sys.exit(main())
