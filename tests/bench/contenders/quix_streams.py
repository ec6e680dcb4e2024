"""Quix Streams as its guide teaches it: a dataframe, state in RocksDB with a changelog, JSON out.

It commits each second, as often as the product does.

`python -m tests.bench.contenders.quix_streams BOOTSTRAP FOLDER`, in an environment of its own, is its program.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from schemas.envelope import Event
from tests.bench.contender import Contender
from tests.bench.environments import make, python_of
from tests.bench.job import after, commands_of, is_repeat, view_of

NAME = "quix-streams"
GROUP = "bench-quix"
EVENTS, VIEWS, COMMANDS = (f"{GROUP}-{name}" for name in ("events", "views", "commands"))
CHANGELOG = f"changelog__{GROUP}--{EVENTS}--default"
"""The name that Quix Streams gives it."""


def fold(value: bytes, state: Any) -> list[dict[str, Any]]:
    """What an event says, as rows of the dataframe: the view, and commands."""
    event = Event.from_json(value)
    case = state.get("case", {})
    if is_repeat(case, event):
        return []
    case = after(case, event)
    state.set("case", case)
    return [{"view": view_of(case, event)}, *({"command": command} for command in commands_of(event))]


def run(bootstrap: str, folder: str) -> None:
    """Until SIGTERM."""
    from quixstreams import Application  # type: ignore[import-not-found]  # its own environment has it

    app = Application(
        broker_address=bootstrap,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        state_dir=Path(folder) / "state",
        commit_interval=1.0,
        loglevel="WARNING",
    )
    events = app.topic(EVENTS, key_deserializer="str", value_deserializer="bytes")
    views = app.topic(VIEWS, key_serializer="str", value_serializer="json")
    commands = app.topic(COMMANDS, key_serializer="str", value_serializer="json")
    rows = app.dataframe(events).apply(fold, stateful=True, expand=True)
    for name, topic, key in (("view", views, "subject"), ("command", commands, "case")):
        chosen = rows.filter(lambda row, name=name: name in row).apply(lambda row, name=name: row[name])
        chosen.to_topic(topic, key=lambda value, key=key: value[key])
    app.run()


CONTENDERS = (
    Contender(
        name=NAME,
        deals=2_000,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={CHANGELOG: {"cleanup.policy": "compact"}},
        group=GROUP,
        programs=lambda bootstrap, folder: [
            [python_of(NAME), "-m", "tests.bench.contenders.quix_streams", bootstrap, str(folder)]
        ],
        prepare=lambda: make(NAME),
    ),
)


if __name__ == "__main__":
    run(*sys.argv[1:])
