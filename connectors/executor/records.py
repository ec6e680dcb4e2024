"""What a record of `hub.commands` says: a command, an event that the processor derived, or news of parked events."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from hub.event_log import Record
from schemas.event import Command, Event, Frozen


def _decoded(text: object) -> bytes:
    return b64decode(text if isinstance(text, str) else b"=", validate=True)


class Derived(Frozen):
    """An event that the processor made of others: it enters the log by the outbox, as all do."""

    record: Literal["event"]
    event: Event


class Parked(Frozen):
    """An event that the processor could not fold."""

    record: Literal["parked"]
    ref: str
    kind: Literal["event"] = "event"
    case_id: str | None = None
    subject: str | None = None
    code: str
    seen: dict[str, Any] = Field(default_factory=dict)
    place: str | None = None
    rule: str | None = None
    mark: int | None = None
    body: Annotated[bytes, BeforeValidator(_decoded)]


class Settled(Frozen):
    """A parked event went through in the end, or was given up."""

    record: Literal["settled"]
    ref: str
    state: Literal["done", "discarded"]


@dataclass(frozen=True)
class Unreadable:
    """Bytes that say none of this, and why."""

    reason: str


Note = Derived | Parked | Settled
Message = Command | Note | Unreadable
_NOTE: TypeAdapter[Note] = TypeAdapter(Annotated[Note, Field(discriminator="record")])


def read(record: Record) -> Message:
    """Read a record; never raises for what it holds."""
    try:
        value = orjson.loads(record.value or b"")
        if isinstance(value, dict) and "record" in value:
            return _NOTE.validate_python(value)
        return Command.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return Unreadable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    except ValueError as error:
        return Unreadable(str(error))
