"""Bytes in, the same bytes out, each delivery awaited before its offset is committed: nothing written in Python is faster.

`python -m tests.bench.contenders.pass_through BOOTSTRAP` is its program.
"""

from __future__ import annotations

import signal
import sys

from confluent_kafka import Consumer

from hub.log.kafka_writers import producer
from tests.bench.contender import Contender
from tests.bench.contenders.librdkafka_loop import batch, deliver

APP = "bench-pass"
EVENTS, VIEWS, COMMANDS = (f"{APP}-{name}" for name in ("events", "views", "commands"))


def run(bootstrap: str) -> None:
    """Until SIGTERM."""
    reading = {"group.id": APP, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **reading})
    consumer.subscribe([EVENTS])
    sender = producer({"bootstrap.servers": bootstrap}, **{"linger.ms": 5})
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told_to_stop.append(number))
    while not told_to_stop:
        records = batch(consumer)
        if records:
            deliver(sender, ((VIEWS, record.key() or b"", record.value() or b"") for record in records))
            consumer.commit(asynchronous=False)
    consumer.close()


CONTENDERS = (
    Contender(
        name="pass-through",
        deals=20_000,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={},
        group=APP,
        programs=lambda bootstrap, folder: [[sys.executable, "-m", "tests.bench.contenders.pass_through", bootstrap]],
        passes_through=True,
    ),
)


if __name__ == "__main__":
    run(sys.argv[1])
