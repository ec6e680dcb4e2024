"""Events and rules for tests, made with as few words as a story needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.engine.case import Case
from hub.log.event_log import Record
from schemas.decoding import AnyEvent
from schemas.envelope import Command, Event, derived_id, promise
from schemas.registry import event_spec

AT = "2026-11-20T02:00:00.000000Z"
DEAL = {"name": "网关项目", "account": "华为", "amount": "880000", "currency": "CNY", "owner": "person/wang.fang"}


def event(type_: str, subject: str, /, *, case: str | None = None, version: str | None = None, **more: Any) -> Event:
    """An event of this type about this subject; its id derives from subject, type and version, unless one is given."""
    data = more.pop("data", DEAL if type_.startswith("crm.opportunity") else {})
    belongs = case or subject
    told = {
        "id": derived_id("test", type_, subject, version or ""),
        "source": f"/connectors/{subject.split('/')[1]}",
        "type": type_,
        "subject": subject,
        "time": AT,
        "recordedtime": AT,
        "dataschema": event_spec(type_).dataschema,
        "partitionkey": belongs,
        "correlationid": belongs,
        "subjectversion": version,
        "data": data,
    }
    return Event(**{**told, **more})


def won(deal: str = "O-1", **more: Any) -> Event:
    """A deal was won."""
    return event("crm.opportunity.won", f"opportunity/crm/{deal}", **{"version": "7", **more})


def command(
    event_: AnyEvent, type_: str = "task.create", position: int = 0, occurrence: str = "", **arguments: Any
) -> Command:
    """A command that a rule asks for on an event."""
    return Command(
        id=derived_id("command", "test", event_.subject, occurrence, str(position)),
        type=type_,
        instance="pm",
        case=event_.case,
        time=event_.time,
        causationid=event_.id,
        subject=event_.subject,
        rule="test",
        digest="d1",
        arguments=arguments,
        position=position,
    )


@dataclass(frozen=True)
class Decisions:
    """What a test's rules decided."""

    live: Sequence[Command] = ()
    shadow: Sequence[Command] = ()
    fired: Sequence[str] = ()


@dataclass
class ProjectRules:
    """A won deal makes a project with two tasks; whatever `breaks` says is wrong raises."""

    breaks: Callable[[AnyEvent], Exception | None] = lambda event: None
    seen: list[tuple[str, str]] = field(default_factory=list)

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        error = self.breaks(event)
        if error is not None:
            raise error
        self.seen.append((event.type, occurrence))
        if event.type != "crm.opportunity.won" or "test" in case.entities[event.subject].fired.get("won", ()):
            return Decisions()
        project = command(event, "project.create", 0, occurrence, name="交付")
        tasks = [
            command(event, "task.create", n, occurrence, title=f"T{n}", project=promise(project.id)) for n in (1, 2)
        ]
        stage = case.entities[event.subject].stage
        return Decisions((project, *tasks), fired=("test",) if stage == "won" else ())


def result(asked: Command, id_: str, **more: Any) -> Event:
    """The executor's news that a project or task was made."""
    kind, type_ = (
        ("project", "work.project.created") if asked.type == "project.create" else ("task", "work.task.created")
    )
    subject = f"{kind}/{asked.instance}/{id_}"
    return event(type_, subject, case=asked.case, causationid=asked.id, data={"name": "交付", **more})


def record(event_: Event | bytes, offset: int = 0, key: bytes | None = None) -> Record:
    """A record of `hub.events`."""
    if isinstance(event_, bytes):
        return Record("hub.events", 0, offset, key, event_)
    return Record("hub.events", 0, offset, event_.case.encode() if key is None else key, event_.to_json())
