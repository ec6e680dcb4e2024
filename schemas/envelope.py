"""Events and commands: the two kinds of message, their envelopes and their ids.

An event is a fact in the CloudEvents 1.0 structured mode; a command is a request that a rule derived from an event. Ids derive
from the content of a message, never from time, attempt or code version: an old log gives the same ids under new code.
"""

from __future__ import annotations

import functools
import hashlib
import re
import uuid
from collections.abc import Callable
from datetime import MAXYEAR, UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

NAMESPACE = uuid.UUID("6b7f2f0a-2c64-5d0e-9a6e-0b2f6c1d8e11")
_VARIANT = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}
MAX_BYTES = 256 * 1024
"""The largest event or command, in bytes of JSON; larger ones are refused at intake."""

# Without anchors: `^…$` matches the whole text in pydantic's regex engine, but not in Python's.
TYPE = r"[a-z][a-z0-9]*(\.[a-z][a-z0-9_]*){2,4}"
REFERENCE = r"[a-z][a-z0-9_-]*/[^\s/]+(/\S.*)?"
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"

_LEAP = re.compile(r"(.{10}[Tt ][0-9]{2}:[0-9]{2}):60(.*)")
Name = Annotated[str, StringConstraints(min_length=1, max_length=400)]
EventType = Annotated[str, StringConstraints(pattern=f"^{TYPE}$", max_length=100)]
CommandType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*\.[a-z][a-z0-9_]*$", max_length=100)]
Reference = Annotated[str, StringConstraints(pattern=f"^{REFERENCE}$", max_length=400)]
"""`kind/instance/id` of a business object, or `person/<id>`."""
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)
Timestamp = Annotated[str, StringConstraints(pattern=f"^{TIMESTAMP}$")]
"""RFC 3339 in UTC with six digits after the second, so that text order is time order."""


def format_time(time: datetime) -> str:
    """Format a time as a `Timestamp`; raises ValueError for one without a time zone."""
    if time.tzinfo is None:
        raise ValueError("a time needs a time zone")
    here = time if time.tzinfo is UTC else time.astimezone(UTC)
    return here.isoformat(timespec="microseconds")[:26] + "Z"  # without its +00:00


def parse_time(text: str) -> datetime:
    """Parse any RFC 3339 time, `Timestamp` or not; raises ValueError for other text and for a time without a zone."""
    return read_time(text, None)


def read_time(text: str, zone: tzinfo | None) -> datetime:
    """As `parse_time`, with `zone` as the default time zone. A leap second (:60) is read as the second after it."""
    try:
        return _in_utc(datetime.fromisoformat(text), zone)
    except OverflowError as error:
        raise ValueError(f"no time that there is: {text}") from error
    except ValueError:
        leap = _LEAP.fullmatch(text)
        if leap is None and text == text.upper():
            raise
    before = _in_utc(datetime.fromisoformat((f"{leap[1]}:59{leap[2]}" if leap else text).upper()), zone)
    if leap is None:
        return before
    if (before.hour, before.minute) != (23, 59) or before.year == MAXYEAR:
        raise ValueError(f"no second 60 is there: {text}")
    return before.replace(microsecond=0) + timedelta(seconds=1)


def _in_utc(read: datetime, zone: tzinfo | None) -> datetime:
    here = read if read.tzinfo else read.replace(tzinfo=zone)
    if here.tzinfo is None:
        raise ValueError("a time needs a time zone")
    return here.astimezone(UTC)


CONNECTOR_SOURCE = "/connectors/"
"""Prefix of `source` for events of a connector instance; the rest is the instance's name."""
HUB_INSTANCE = "hub"
"""The instance name of the hub's own events."""


def instance_of(source: str) -> str:
    """The instance that an event comes from, by its `source`; `hub` for the hub's own events."""
    return source.removeprefix(CONNECTOR_SOURCE) if source.startswith(CONNECTOR_SOURCE) else HUB_INSTANCE


def is_reference(text: str) -> bool:
    """Whether the text is a `Reference`; every case id is one."""
    try:
        _REFERENCE.validate_python(text)
    except ValidationError:
        return False
    return True


def derived_id(*parts: str) -> str:
    """The uuid5 of these parts, in order: the same parts give the same id on every machine and in every replay."""
    return derived_ids()(*parts)


def derived_ids(*first: str) -> Callable[..., str]:
    """As `derived_id`, for several ids that share their first parts."""
    prefix = hashlib.sha1(
        NAMESPACE.bytes + "".join([f"{_escaped(part)}|" for part in first]).encode(), usedforsecurity=False
    )

    def derived(*rest: str) -> str:
        digest = prefix.copy()
        digest.update("|".join(map(_escaped, rest)).encode())
        # As uuid.uuid5, at a fifth of the cost: version 5 and the variant of RFC 4122 are set in the text.
        digits = digest.hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"

    return derived


def _escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace("|", "\\|") if "|" in part or "\\" in part else part


_set = object.__setattr__


@functools.cache
def _field_names(model: type[BaseModel]) -> set[str]:
    """One set shared by all instances that set every field; pydantic copies it before changing it."""
    return set(model.model_fields)


class Frozen(BaseModel):
    """The base of every message: immutable; unknown fields, as of a later version, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def trusted(cls, fields: dict[str, Any]) -> Self:
        """Build a message from validated fields, at a fifth of the cost. All fields must be present; the dict is not copied."""
        message = cls.__new__(cls)
        _set(message, "__dict__", fields)
        _set(message, "__pydantic_fields_set__", _field_names(cls))
        _set(message, "__pydantic_extra__", None)
        _set(message, "__pydantic_private__", None)
        return message


class EventParts:
    """Properties derived from an event's attributes, shared by `Event` and `RecordedEvent`."""

    __slots__ = ()
    if TYPE_CHECKING:
        subject: str
        dataschema: str
        partitionkey: str

    @property
    def case(self) -> str:
        """The case it belongs to."""
        return self.partitionkey

    @property
    def kind(self) -> str:
        """The kind of its entity: the first part of the subject."""
        return self.subject.partition("/")[0]

    @property
    def version(self) -> int:
        """The version of its data schema."""
        return int(self.dataschema.rpartition(":")[2])


class Event(EventParts, Frozen):
    """A fact. Attribute names are those of CloudEvents 1.0 and its extensions."""

    specversion: Literal["1.0"] = "1.0"
    id: Name
    source: Name = Field(description="/connectors/<instance>, or /hub/<part>")
    type: EventType
    subject: Reference = Field(description="the entity that this is about")
    time: Timestamp = Field(description="when it happened, by the source's clock")
    claimedtime: Timestamp | None = Field(
        default=None, description="the source's own time, where its clock was too far ahead to be accepted"
    )
    recordedtime: Timestamp = Field(description="when the hub recorded it, by the hub's clock")
    dataschema: Name = Field(description="urn:hub:<type>:<version>")
    datacontenttype: Literal["application/json"] = "application/json"
    partitionkey: Reference = Field(description="the case; also the record's key in Kafka")
    correlationid: Reference = Field(description="the case, for readers that know this name")
    causationid: Name | None = Field(default=None, description="the event or command that caused it")
    subjectversion: Name | None = Field(default=None, description="the source's version of the subject")
    sequence: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,19}$")] | None = Field(
        default=None, description="gapless per outbox and partition; given by the relay"
    )
    outbox: Name | None = Field(default=None, description="which ledger's outbox counts the sequence")
    actor: Reference | None = Field(default=None, description="who did it")
    origin: Name | None = Field(default=None, description="the command whose echo this is")
    traceparent: Name | None = None
    clears: list[Name] | None = Field(default=None, description="the fields of the subject that this event empties")
    data: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> bytes:
        """Its CloudEvents JSON, without attributes that are not set."""
        # Every field is plain JSON already; model_dump would visit each again.
        return orjson.dumps({name: value for name, value in self.__dict__.items() if value is not None})

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Decode and validate CloudEvents JSON; raises pydantic.ValidationError, also for bytes that are no JSON."""
        event: Self = cls.__pydantic_validator__.validate_json(raw)  # as model_validate_json, an eighth cheaper
        return event


class Command(Frozen):
    """A rule's request to change an outside system.

    `arguments` may hold promises: the executor replaces `{"$promise": "<command id>"}` with that command's result once that
    command is done.
    """

    id: Name
    type: CommandType
    instance: Name = Field(description="the connector instance that executes it")
    case: Reference
    time: Timestamp = Field(description="the time of the causing event, never of the evaluation")
    causationid: Name = Field(description="the id of the causing event")
    subject: Reference = Field(description="the entity of the causing event")
    rule: Name
    digest: Name = Field(description="of the rule's text when it fired")
    title: dict[str, str] = Field(default_factory=dict, description="the rule's title by language")
    matched: dict[str, Any] = Field(default_factory=dict, description="what the rule's condition read, and its values")
    arguments: dict[str, Any] = Field(default_factory=dict)
    position: int = Field(ge=0, description="its place among the commands of its event")

    def to_json(self) -> bytes:
        """Its JSON."""
        return orjson.dumps(self.__dict__)

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Decode and validate; raises pydantic.ValidationError."""
        return cls.model_validate_json(raw)


def promise(command_id: str) -> dict[str, str]:
    """A placeholder for the result of a command that is still to be executed."""
    return {"$promise": command_id}


def promised(value: object) -> str | None:
    """The id of the command that a promise refers to; None for any other value."""
    if isinstance(value, dict) and len(value) == 1:
        command_id = value.get("$promise")
        return command_id if isinstance(command_id, str) else None
    return None
