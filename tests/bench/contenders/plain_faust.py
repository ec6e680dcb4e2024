"""Faust as its guide teaches it: an agent, a Table in memory with its changelog, `topic.send`, JSON and pydantic.

`python -m tests.bench.contenders.plain_faust BOOTSTRAP FOLDER worker …` is its program.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faust
from faust.types import StreamT

from schemas.event import Event, derived_id
from schemas.topics import PARTITIONS
from tests.bench.contender import BASELINE, Contender
from tests.bench.won2task import COMMANDS_OF_A_DEAL

APP = "bench-plain"
EVENTS, VIEWS, COMMANDS = (f"{APP}-in-{name}" for name in ("events", "views", "commands"))
RECENT = 16


def make_app(bootstrap: str, folder: str) -> faust.App:
    """The program."""
    app = faust.App(
        APP,
        broker=f"kafka://{bootstrap}",
        store="memory://",
        datadir=folder,
        topic_partitions=PARTITIONS,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
    )
    events = app.topic(EVENTS, key_type=str, value_serializer="json")
    views = app.topic(VIEWS, key_type=str, value_serializer="json")
    commands = app.topic(COMMANDS, key_type=str, value_serializer="json")
    cases = app.Table("cases", default=dict, partitions=PARTITIONS)

    @app.agent(events)
    async def run_cases(stream: StreamT[dict[str, Any]]) -> None:
        async for key, value in stream.items():
            event = Event.model_validate(value)
            case = cases[key]
            if event.id in case.get("seen", []):
                continue
            case = after(case, event)
            cases[key] = case
            await views.send(
                key=event.subject, value={"subject": event.subject, "case": key, "event": event.id, **case}
            )
            if event.type == "crm.opportunity.won" and float(event.data["amount"]) >= 100_000:
                for command in commands_of(event):
                    await commands.send(key=key, value=command)

    return app


def after(case: dict[str, Any], event: Event) -> dict[str, Any]:
    """The case after an event."""
    return {
        "seen": [*case.get("seen", []), event.id][-RECENT:],
        "stage": event.type.rpartition(".")[2],
        "version": event.subjectversion,
        "time": event.time,
        "data": {**case.get("data", {}), **event.data},
    }


def commands_of(event: Event) -> list[dict[str, Any]]:
    """As many as acme's rule makes, of about their size."""
    types = ["project.create", "task.create", "task.create", "task.create", "message.send"]
    return [
        {
            "id": derived_id("command", "won-deal-to-delivery", event.subject, event.id, str(at)),
            "type": type_,
            "instance": "pm",
            "case": event.case,
            "time": event.time,
            "causationid": event.id,
            "subject": event.subject,
            "rule": "won-deal-to-delivery",
            "title": {"zh": "赢单自动立项", "en": "A won deal becomes a delivery project"},
            "arguments": {"name": f"交付 {event.data['name']}", "customer": event.data["account"]},
            "position": at,
        }
        for at, type_ in enumerate(types[:COMMANDS_OF_A_DEAL])
    ]


def command(bootstrap: str, folder: Path) -> list[str]:
    module = "tests.bench.contenders.plain_faust"
    return [sys.executable, "-m", module, bootstrap, str(folder), "worker", "-l", "warn", "--without-web"]


CONTENDER = Contender(
    name=BASELINE,
    deals=800,
    events=EVENTS,
    views=VIEWS,
    commands=COMMANDS,
    more={f"{APP}-cases-changelog": {"cleanup.policy": "compact"}},
    group=APP,
    command=command,
)


if __name__ == "__main__":
    given_bootstrap, given_folder = sys.argv[1:3]
    del sys.argv[1:3]
    make_app(given_bootstrap, given_folder).main()
