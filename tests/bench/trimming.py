"""What trimming leaves of the ledger and costs: `python -m tests.bench.trimming [EVENTS] [KEYS]`, on its own broker and databases.

EVENTS are trimmed in SQLite and in PostgreSQL, from a real log. Among KEYS, in SQLite, repeats are looked up and news are taken in,
beside the statement that knows no keys, in turn.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, event, text

from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.intake.trimmer import Trimmer, TrimmingPace
from hub.ledger import outbox, trimmed
from hub.ledger.database import insert_all
from hub.ledger.ledger import Ledger
from hub.log.kafka_log import KafkaLog
from hub.ops.recovery import publish
from hub.runtime.clock import SystemClock
from schemas.envelope import Event
from schemas.topics import EVENTS
from tests.bench.backups import _log, filled
from tests.events import won
from tests.kafka_fixture import embedded
from tests.postgres_server import running_server
from tests.trimming import note_backup

BATCHES = (1, 20, 256)
"""Events of one transaction of the intake."""
ROUNDS = 60


def main(events: int, keys: int) -> dict[str, Any]:
    """Measure; all of it in a folder that is gone afterwards."""
    told: dict[str, Any] = {"events": events, "keys": keys}
    with tempfile.TemporaryDirectory(prefix="hub-trimming-") as name, running_server() as server:
        folder = Path(name)
        if keys:
            told["among keys"] = _among_keys(folder, keys)
        for store, url in (("sqlite", f"sqlite:///{folder}/ledger.sqlite"), ("postgresql", server.database())):
            broker = embedded(folder / f"kafka-{store}") if events else None
            if broker is not None:
                try:
                    told[store] = _trimmed(url, _log(broker), events)
                finally:
                    broker.stop()
    return told


def _trimmed(url: str, log: KafkaLog, events: int) -> dict[str, Any]:
    ledger = filled(url, events)
    try:
        publish(log, ledger)
        note_backup(ledger, log, log.ends(EVENTS.name))  # the broker is one
        before = _bytes(ledger.engine)
        recall = LedgerCatchUp(ledger, log, SystemClock())
        recall.make_sure()
        made = Trimmer(ledger, log, SystemClock(), recall, timedelta(0), pace=TrimmingPace(rest=0.0))
        held = _held(ledger.engine)
        began, cpu = time.monotonic(), time.process_time()
        assert made.look() == events
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        after = _bytes(ledger.engine)
    finally:
        ledger.close()
    return {
        "bytes_per_event": {"before": round(before / events), "after": round(after / events)},
        "seconds_per_million": round(seconds * 1e6 / events, 1),
        "cpu_seconds_per_million": round(cpu * 1e6 / events, 1),
        "transaction_ms": _spread(held[1:], 1e3),
        "transactions": len(held),
    }


def _held(engine: Engine) -> list[float]:
    """How long each transaction that writes lasts, from its begin to the end of its commit."""
    found, begun = list[float](), dict[int, float]()

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        begun[id(conn)] = time.monotonic()

    @event.listens_for(engine, "commit")
    def commit(conn: Connection) -> None:
        if not conn.get_execution_options().get("reading", False):
            found.append(time.monotonic() - begun[id(conn)])

    return found


def _bytes(engine: Engine) -> int:
    """What lies in the pages that are in use: those that are free are used again before a file grows."""
    if engine.dialect.name == "sqlite":
        with engine.connect().execution_options(reading=True) as conn:
            pages, free, size = (
                int(conn.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                for name in ("page_count", "freelist_count", "page_size")
            )
        return (pages - free) * size
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("VACUUM (FULL) outbox")  # as autovacuum leaves its space to be used again
        tables = ("outbox", "trimmed", "floors")
        return sum(int(conn.execute(text(f"SELECT pg_total_relation_size('{each}')")).scalar_one()) for each in tables)


def _among_keys(folder: Path, keys: int) -> dict[str, Any]:
    """Among so many keys: repeats looked up; news taken in, beside a ledger that has none, and beside the plain statement."""
    url = f"sqlite:///{folder}/keys.sqlite"
    with closing(Ledger(url)) as ledger, closing(Ledger(f"sqlite:///{folder}/none.sqlite")) as empty:
        known = _filled_with_keys(ledger, keys)
        told: dict[str, Any] = {"bytes_per_key": round(_bytes(ledger.engine) / keys)}
        for size in BATCHES:
            took = _batches(ledger, lambda n, s=size: [known(n * s + k) for k in range(s)], outbox.record_all)  # type: ignore[misc]
            told[f"repeat, {size} at once, µs an event"] = _spread([each / size for each in took], 1e6)
        number = iter(range(10**9))
        ratios: dict[str, list[float]] = {"keys": [], "no keys": []}
        for _ in range(15):
            plain = sum(_batches(empty, lambda _: _news(number, 64), _plain, 20))
            ratios["no keys"].append(plain / sum(_batches(empty, lambda _: _news(number, 64), outbox.record_all, 20)))
            ratios["keys"].append(plain / sum(_batches(ledger, lambda _: _news(number, 64), outbox.record_all, 20)))
        for name, each in ratios.items():
            told[f"news a second ÷ the plain statement, {name}"] = [round(v, 2) for v in _three(each)]
    return told


def _filled_with_keys(ledger: Ledger, keys: int) -> Callable[[int], Event]:
    """So many keys, in no order, as trimming brings them; gives an event of one of them."""
    order = random.Random(5)
    with ledger.engine.connect() as conn:
        raw: Any = conn.connection.dbapi_connection
        raw.execute("PRAGMA synchronous=OFF")
        raw.execute("PRAGMA cache_size=-4000000")
        for first in range(0, keys, 50_000):
            rows = [
                (trimmed.id_hash(f"known-{n}"), order.randbytes(16), None)
                for n in range(first, min(keys, first + 50_000))
            ]
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany("INSERT INTO trimmed VALUES (?, ?, ?)", rows)
            raw.execute("COMMIT")
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.engine.dispose()
    base = won()
    return lambda _: base.model_copy(update={"id": f"known-{order.randrange(keys)}"})


def _batches(
    ledger: Ledger,
    told: Callable[[int], Sequence[Event]],
    work: Callable[[Connection, Sequence[tuple[Event, str]]], int],
    rounds: int = ROUNDS,
) -> list[float]:
    """Seconds of the statement alone, without begin and commit."""
    took = []
    for number in range(rounds):
        events = [(each, "crm") for each in told(number)]
        with ledger.engine.begin() as conn:
            began = time.perf_counter()
            work(conn, events)
            took.append(time.perf_counter() - began)
    return took


def _news(number: Any, count: int) -> list[Event]:
    base = won()
    return [base.model_copy(update={"id": f"new-{next(number)}"}) for _ in range(count)]


def _plain(conn: Connection, events: Sequence[tuple[Event, str]]) -> int:
    """As it was before there were keys."""
    rows = [outbox._row(each, instance, each.case) for each, instance in events]
    return insert_all(conn, outbox.outbox, outbox._GIVEN, rows, "event_id")


def _spread(values: Sequence[float], unit: float) -> dict[str, float]:
    ranked = sorted(values)
    return {
        name: round(ranked[min(len(ranked) - 1, int(len(ranked) * part))] * unit, 2)
        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("most", 1.0))
    }


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


if __name__ == "__main__":
    given = [int(each) for each in sys.argv[1:]]
    found = main(*(given + [1_000_000, 10_000_000][len(given) :]))
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
