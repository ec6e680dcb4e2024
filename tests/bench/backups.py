"""Publishing a lost log again, backing a hub up, restoring it: `python -m tests.bench.backups [EVENTS]`, on its own brokers."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

from hub.home import Home
from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.ops.backups import restoring
from hub.ops.backups.making import back_up
from hub.ops.embedded_kafka import EmbeddedKafka
from hub.ops.recovery import publish
from schemas.topics import PARTITIONS
from tests.events import AT, won
from tests.kafka_fixture import client_of, embedded

AT_ONCE = 5000
T = TypeVar("T")


def filled(url: str, events: int) -> Ledger:
    """A ledger that has so many events as sent."""
    ledger = Ledger(url)
    for first in range(0, events, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, events))
        ledger.writer.run(
            lambda conn, of=numbers: outbox.record(conn, [won(f"O-{n}", version=str(n)) for n in of], "crm")  # type: ignore[misc]
        )
        rows = ledger.writer.run(lambda conn: outbox.take(conn, AT_ONCE, PARTITIONS))
        ledger.writer.run(lambda conn, of=rows: outbox.mark_published(conn, [row.id for row in of], AT))  # type: ignore[misc]
    return ledger


def timed(what: str, work: Callable[[], T], events: int, told: dict[str, Any]) -> T:
    """Do it, and note events a second."""
    began, cpu = time.monotonic(), time.process_time()
    answer = work()
    seconds = time.monotonic() - began
    told[what] = {
        "seconds": round(seconds, 2),
        "events_per_second": round(events / seconds),
        "cpu_us_per_event": round((time.process_time() - cpu) * 1e6 / events, 1),
    }
    return answer


def main(events: int) -> dict[str, Any]:
    """Measure; all of it in a folder that is gone afterwards."""
    told: dict[str, Any] = {"events": events}
    with tempfile.TemporaryDirectory(prefix="hub-backups-") as name:
        folder = Path(name)
        (folder / "home").mkdir()
        (folder / "home" / "hub.yaml").write_text("name: bench\n", "utf-8")
        url = f"sqlite:///{folder}/ledger.sqlite"
        home = Home.load(folder / "home", {"HUB_LEDGER": url})
        ledger = filled(url, events)
        broker = embedded(folder / "kafka")
        other = embedded(folder / "kafka-2")
        try:
            log = _log(broker)
            timed("publish again", lambda: publish(log, ledger), events, told)
            ledger.close()
            made = timed("backup", lambda: back_up(home, log, folder / "copy", datetime.now(UTC)), events, told)
            timed("backup, nothing new", lambda: back_up(home, log, folder / "copy", datetime.now(UTC)), events, told)
            broker.stop()
            found = timed("verify", lambda: restoring.verify(folder / "copy"), events, told)
            new, there = _log(other), f"sqlite:///{folder}/restored.sqlite"
            timed(
                "restore",
                lambda: restoring.restore(found, folder / "copy", new, there, datetime.now(UTC)),
                events,
                told,
            )
        finally:
            broker.stop()
            other.stop()
        told["bytes_per_event"] = {
            "log": round(sum(each.bytes for each in made.segments) / events, 1),
            "ledger": round(sum(each.bytes for each in (made.ledger.pieces if made.ledger else [])) / events, 1),
        }
    return told


def _log(broker: EmbeddedKafka) -> KafkaLog:
    client = client_of(broker.start())
    ensure_topics(client, replication=1)
    return KafkaLog(client)


if __name__ == "__main__":
    print(orjson.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000), option=orjson.OPT_INDENT_2).decode())
