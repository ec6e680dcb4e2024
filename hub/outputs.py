"""What a step may say: commands, events of the processor's own, views of entities, and news of parked work.

Each output is one record. Commands, events and news of parked work travel on `hub.commands`, so that the ledger takes them in
by one door and in one order; views travel on the topic of their kind.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from hub.case import Entity
from hub.errors import RejectedError
from hub.event_log import Outgoing
from schemas import topics
from schemas.event import Command, Event

NO_CASE = b"hub"
"""The key of outputs that belong to no case."""


_json = msgspec.json.Encoder().encode
"""As orjson.dumps, a third cheaper for texts that were just read; and it takes integers of any size, as an event may hold them."""


class View(msgspec.Struct, frozen=True, gc=False):
    """The current state of an entity."""

    entity: Entity
    case: str
    event: str

    def record(self) -> Outgoing | None:
        """Its record; None for a kind that has no topic."""
        topic = topics.VIEWS.get(self.entity.kind)
        if topic is None:
            return None
        told = self.entity
        value = _Shown(told.ref, self.case, told.stage, told.version, told.time, self.event, told.data, told.sources)
        return Outgoing(topic.name, told.ref.encode(), _json(value))


class _Shown(msgspec.Struct, frozen=True, gc=False):
    """A view's value, in the order of its fields."""

    subject: str
    case: str
    stage: str | None
    version: str
    time: str
    event: str
    data: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A command for the executor."""

    command: Command

    def record(self) -> Outgoing:
        return Outgoing(topics.COMMANDS.name, self.command.case.encode(), _json(self.command.__dict__))


class Derive(msgspec.Struct, frozen=True, gc=False):
    """An event that follows from others: it enters the log by the outbox, as all do."""

    event: Event

    def record(self) -> Outgoing:
        value = {"record": "event", "event": self.event.model_dump(exclude_none=True)}
        return Outgoing(topics.COMMANDS.name, self.event.case.encode(), _json(value))


@dataclass(frozen=True)
class Parked:
    """An event that cannot go on, for the ledger's list of parked work."""

    ref: str
    case: str | None
    subject: str | None
    code: str
    seen: dict[str, Any]
    place: str | None
    rule: str | None
    body: bytes
    mark: int | None = None
    """The log offset of what failed: told again under it, it is the same failure."""

    def record(self) -> Outgoing:
        value = {
            "record": "parked",
            "mark": self.mark,
            "kind": "event",
            "ref": self.ref,
            "case_id": self.case,
            "subject": self.subject,
            "code": self.code,
            "seen": {name: str(fact) for name, fact in self.seen.items()},
            "place": self.place,
            "rule": self.rule,
            "body": base64.b64encode(self.body).decode(),
        }
        return Outgoing(topics.COMMANDS.name, self.case.encode() if self.case else NO_CASE, _json(value))

    def fields(self) -> dict[str, str]:
        """What a log line tells of it, as `HubError.fields`."""
        told = RejectedError(self.code, **self.seen).fields()
        return {**told, **({"place": self.place} if self.place else {}), "fix": f"{told['fix']} · hub parked"}


@dataclass(frozen=True)
class Settled:
    """A parked event is done or discarded."""

    ref: str
    case: str
    state: str

    def record(self) -> Outgoing:
        value = {"record": "settled", "ref": self.ref, "state": self.state}
        return Outgoing(topics.COMMANDS.name, self.case.encode(), _json(value))


Output = View | Ask | Derive | Parked | Settled
