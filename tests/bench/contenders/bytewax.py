"""Bytewax as its guide teaches it: a dataflow from Kafka to Kafka, one worker, its state in the recovery store.

That store takes the changelog's place. It is written each second, as often as the product commits: by its default of ten seconds
no state would be kept in a race that is as short.
`python -m tests.bench.contenders.bytewax BOOTSTRAP FOLDER`, in an environment of its own, is its program.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from schemas.envelope import Event
from tests.bench.contender import Contender
from tests.bench.environments import make, python_of
from tests.bench.job import Case, after, commands_of, is_repeat, view_of

NAME = "bytewax"
APP = "bench-bytewax"
EVENTS, VIEWS, COMMANDS = (f"{APP}-{name}" for name in ("events", "views", "commands"))

Out = tuple[str, str, bytes]
"""Topic, key, value."""


def fold(case: Case | None, event: Event) -> tuple[Case, list[Out]]:
    """The case after an event, and what follows."""
    case = case or {}
    if is_repeat(case, event):
        return case, []
    case = after(case, event)
    view = (VIEWS, event.subject, orjson.dumps(view_of(case, event)))
    return case, [view, *((COMMANDS, event.case, orjson.dumps(command)) for command in commands_of(event))]


def run(bootstrap: str, folder: str) -> None:
    """Until SIGTERM."""
    # Its own environment has these.
    import bytewax.operators as op  # type: ignore[import-not-found]
    from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource  # type: ignore[import-not-found]
    from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
    from bytewax.recovery import RecoveryConfig, init_db_dir  # type: ignore[import-not-found]
    from bytewax.run import cli_main  # type: ignore[import-not-found]

    def read(message: Any) -> tuple[str, Event]:
        event = Event.from_json(message.value)
        return event.case, event

    def sent(keyed: tuple[str, Out]) -> Any:
        topic, key, value = keyed[1]
        return KafkaSinkMessage(key.encode(), value, topic=topic)

    flow = Dataflow("won2task")
    records = op.input("read", flow, KafkaSource([bootstrap], [EVENTS]))
    outputs = op.stateful_flat_map("fold", op.map("parse", records, read), fold)
    op.output("write", op.map("sent", outputs, sent), KafkaSink([bootstrap], None))
    store = Path(folder) / "recovery"
    store.mkdir()
    init_db_dir(store, 1)
    cli_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(str(store), timedelta(0)))


CONTENDERS = (
    Contender(
        name=NAME,
        deals=6_000,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={},
        group=APP,
        programs=lambda bootstrap, folder: [
            [python_of(NAME), "-m", "tests.bench.contenders.bytewax", bootstrap, str(folder)]
        ],
        prepare=lambda: make(NAME),
    ),
)


if __name__ == "__main__":
    run(*sys.argv[1:])
