"""Faust as its guide teaches it: an agent, a Table in memory with its changelog, `topic.send`, JSON and pydantic.

`python -m tests.bench.contenders.plain_faust BOOTSTRAP FOLDER worker …` is its program.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faust
from faust.types import StreamT

from schemas.envelope import Event
from schemas.topics import PARTITIONS
from tests.bench.contender import BASELINE, Contender
from tests.bench.job import after, commands_of, is_repeat, view_of

APP = "bench-plain"
EVENTS, VIEWS, COMMANDS = (f"{APP}-in-{name}" for name in ("events", "views", "commands"))


def plain_app(name: str, bootstrap: str, folder: str) -> faust.App:
    """An app without agents, whose topics the bench makes."""
    return faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=PARTITIONS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
    )


def make_app(bootstrap: str, folder: str) -> faust.App:
    """The program."""
    app = plain_app(APP, bootstrap, folder)
    events = app.topic(EVENTS, key_type=str, value_serializer="json")
    views = app.topic(VIEWS, key_type=str, value_serializer="json")
    commands = app.topic(COMMANDS, key_type=str, value_serializer="json")
    cases = app.Table("cases", default=dict, partitions=PARTITIONS)

    @app.agent(events)
    async def run_cases(stream: StreamT[dict[str, Any]]) -> None:
        async for key, value in stream.items():
            event = Event.model_validate(value)
            case = cases[key]
            if is_repeat(case, event):
                continue
            case = after(case, event)
            cases[key] = case
            await views.send(key=event.subject, value=view_of(case, event))
            for command in commands_of(event):
                await commands.send(key=key, value=command)

    return app


def programs(bootstrap: str, folder: Path) -> list[list[str]]:
    module = "tests.bench.contenders.plain_faust"
    return [[sys.executable, "-m", module, bootstrap, str(folder), "worker", "-l", "warn", "--without-web"]]


CONTENDERS = (
    Contender(
        name=BASELINE,
        deals=800,
        events=EVENTS,
        views=VIEWS,
        commands=COMMANDS,
        more={f"{APP}-cases-changelog": {"cleanup.policy": "compact"}},
        group=APP,
        programs=programs,
    ),
)


if __name__ == "__main__":
    given_bootstrap, given_folder = sys.argv[1:3]
    del sys.argv[1:3]
    make_app(given_bootstrap, given_folder).main()
