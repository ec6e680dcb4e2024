"""A loop written by hand round librdkafka, with the same work as plain Faust: what an expert writes who needs no framework.

Batches, pydantic, cases in memory with a changelog of the last state of each case of a batch; the outputs are delivered before the
states, and both before the offsets are committed. Left out is what runs at its start only: it does not read its changelog back.
`python -m tests.bench.contenders.librdkafka_loop BOOTSTRAP` is its program.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Sequence

import orjson
from confluent_kafka import Consumer, KafkaException, Message, Producer

from hub.log.kafka_writers import producer
from schemas.envelope import Event
from tests.bench.contender import Contender
from tests.bench.job import Case, after, commands_of, is_repeat, view_of

APP = "bench-loop"
EVENTS, VIEWS, COMMANDS, STATES = (f"{APP}-{name}" for name in ("events", "views", "commands", "states"))
AT_ONCE = 2000

Out = tuple[str, bytes, bytes]
"""Topic, key, value."""


def fold(records: Sequence[Message], cases: dict[bytes, Case]) -> tuple[list[Out], list[Out]]:
    """What a batch says: outputs, and the states that they leave."""
    outputs: list[Out] = []
    touched: set[bytes] = set()
    for record in records:
        key, event = record.key() or b"", Event.from_json(record.value() or b"")
        case = cases.get(key, {})
        if is_repeat(case, event):
            continue
        cases[key] = case = after(case, event)
        touched.add(key)
        outputs.append((VIEWS, event.subject.encode(), orjson.dumps(view_of(case, event))))
        outputs.extend((COMMANDS, key, orjson.dumps(command)) for command in commands_of(event))
    return outputs, [(STATES, key, orjson.dumps(cases[key])) for key in touched]


def deliver(sender: Producer, records: Iterable[Out]) -> None:
    """Return once the broker has them all; raises KafkaException when it refused one."""
    refused: list[KafkaException] = []

    def told(error: object, _message: Message) -> None:
        if error is not None:
            refused.append(KafkaException(error))

    for topic, key, value in records:
        sender.produce(topic, value, key, on_delivery=told)
    sender.flush()
    if refused:
        raise refused[0]


def run(bootstrap: str) -> None:
    """Until SIGTERM."""
    reading = {"group.id": APP, "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **reading})
    consumer.subscribe([EVENTS])
    sender = producer({"bootstrap.servers": bootstrap}, **{"linger.ms": 5})
    cases: dict[bytes, Case] = {}
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told_to_stop.append(number))
    while not told_to_stop:
        records = batch(consumer)
        if not records:
            continue
        outputs, states = fold(records, cases)
        deliver(sender, outputs)
        deliver(sender, states)
        consumer.commit(asynchronous=False)
    consumer.close()


def batch(consumer: Consumer) -> list[Message]:
    """What is there, up to AT_ONCE records; raises KafkaException for what is none."""
    first = consumer.consume(1, 0.5)
    records = [*first, *consumer.consume(AT_ONCE - 1, 0)] if first else []
    for record in records:
        if record.error() is not None:
            raise KafkaException(record.error())
    return records


CONTENDERS = (
    Contender(
        name="librdkafka-loop",
        deals=8_000,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={STATES: {"cleanup.policy": "compact"}},
        group=APP,
        programs=lambda bootstrap, folder: [
            [sys.executable, "-m", "tests.bench.contenders.librdkafka_loop", bootstrap],
        ],
    ),
)


if __name__ == "__main__":
    run(sys.argv[1])
