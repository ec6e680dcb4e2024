"""Events and commands: the two kinds of message, their envelopes and their ids.

An event is a fact in the CloudEvents 1.0 structured mode; a command is a request that a rule made of one. Ids derive from
what a message is about and never contain time, attempt or code version: an old log gives the same ids under new code.
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
"""The largest event or command, in bytes of JSON; more is refused at the door."""

# Without their ends: `^…$` of pydantic's own engine means the whole text, and others have other words for that.
TYPE = r"[a-z][a-z0-9]*(\.[a-z][a-z0-9_]*){2,4}"
REFERENCE = r"[a-z][a-z0-9_-]*/[^\s/]+(/\S.*)?"
STAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"

_LEAP = re.compile(r"(.{10}[Tt ][0-9]{2}:[0-9]{2}):60(.*)")
Name = Annotated[str, StringConstraints(min_length=1, max_length=400)]
EventType = Annotated[str, StringConstraints(pattern=f"^{TYPE}$", max_length=100)]
CommandType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*\.[a-z][a-z0-9_]*$", max_length=100)]
Reference = Annotated[str, StringConstraints(pattern=f"^{REFERENCE}$", max_length=400)]
"""`kind/instance/id` of a business object, or `person/<id>`."""
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)
Stamp = Annotated[str, StringConstraints(pattern=f"^{STAMP}$")]
"""RFC 3339 in UTC with six digits after the second, so that text order is time order."""


def format_time(time: datetime) -> str:
    """Write a time as a `Stamp`; raises ValueError for one without a time zone."""
    if time.tzinfo is None:
        raise ValueError("a time without a zone says nothing")
    here = time if time.tzinfo is UTC else time.astimezone(UTC)
    return here.isoformat(timespec="microseconds")[:26] + "Z"  # without its +00:00


def parse_time(text: str) -> datetime:
    """Read any RFC 3339 time, `Stamp` or not; raises ValueError for other text and for a time without a zone."""
    return read_time(text, None)


def read_time(text: str, zone: tzinfo | None) -> datetime:
    """As `parse_time`, for a time that may leave its zone to `zone`. A leap second is the moment that follows it."""
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
        raise ValueError("a time without a zone says nothing")
    return here.astimezone(UTC)


OUTSIDE = "/connectors/"
"""What the source of an event that an instance told begins with; the rest is the instance."""
HUB = "hub"
"""The instance of events that are the hub's own."""


def instance_of(source: str) -> str:
    """Whose event it is, by its source: an instance's, or the hub's own."""
    return source.removeprefix(OUTSIDE) if source.startswith(OUTSIDE) else HUB


def is_reference(text: str) -> bool:
    """Whether it is a `Reference`: only then can it be a case."""
    try:
        _REFERENCE.validate_python(text)
    except ValidationError:
        return False
    return True


def derived_id(*parts: str) -> str:
    """The uuid5 of these parts in order: the same parts give the same id on every machine and in every replay."""
    return derived_ids()(*parts)


def derived_ids(*first: str) -> Callable[..., str]:
    """As `derived_id`, for several ids whose first parts are the same."""
    begun = hashlib.sha1(
        NAMESPACE.bytes + "".join([f"{_escaped(part)}|" for part in first]).encode(), usedforsecurity=False
    )

    def derived(*rest: str) -> str:
        made = begun.copy()
        made.update("|".join(map(_escaped, rest)).encode())
        # As uuid.uuid5 has it, at a fifth of the cost: version 5 and the variant of RFC 4122 in their places.
        digits = made.hexdigest()
        return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"

    return derived


def _escaped(part: str) -> str:
    return part.replace("\\", "\\\\").replace("|", "\\|") if "|" in part or "\\" in part else part


_set = object.__setattr__


@functools.cache
def _names(model: type[BaseModel]) -> set[str]:
    """One set for all that have every field; pydantic copies it before it changes it."""
    return set(model.model_fields)


class Frozen(BaseModel):
    """The base of every message: immutable; what a later version may add is passed over, not refused."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def trusted(cls, fields: dict[str, Any]) -> Self:
        """One of fields that were checked where they come from, at a fifth of the cost. Every field has to be there; it is kept."""
        made = cls.__new__(cls)
        _set(made, "__dict__", fields)
        _set(made, "__pydantic_fields_set__", _names(cls))
        _set(made, "__pydantic_extra__", None)
        _set(made, "__pydantic_private__", None)
        return made


class EventParts:
    """What the attributes of an event tell besides."""

    __slots__ = ()
    if TYPE_CHECKING:
        subject: str
        dataschema: str
        partitionkey: str

    @property
    def case(self) -> str:
        """The chain of work it belongs to."""
        return self.partitionkey

    @property
    def kind(self) -> str:
        """What kind of object it is about: the first part of the subject."""
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
    time: Stamp = Field(description="when it happened, by the source's clock")
    claimedtime: Stamp | None = Field(
        default=None, description="what the source said, where its clock was too far ahead to be believed"
    )
    recordedtime: Stamp = Field(description="when the hub recorded it, by the hub's clock")
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
        # Every field is plain JSON already; model_dump would look at each once more.
        return orjson.dumps({name: value for name, value in self.__dict__.items() if value is not None})

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read and check CloudEvents JSON; raises pydantic.ValidationError, also for bytes that are no JSON."""
        read: Self = cls.__pydantic_validator__.validate_json(raw)  # as model_validate_json, an eighth cheaper
        return read


class Command(Frozen):
    """A request to change an outside system, as a rule made it.

    `arguments` may hold promises: `{"$promise": "<command id>"}` stands for that command's result and is resolved by the
    executor once the earlier command is done.
    """

    id: Name
    type: CommandType
    instance: Name = Field(description="the connector instance that is asked")
    case: Reference
    time: Stamp = Field(description="the time of the event that asked, never of the evaluation")
    causationid: Name = Field(description="the event that asked")
    subject: Reference = Field(description="the entity of the event that asked")
    rule: Name
    digest: Name = Field(description="of the rule's text, when it asked")
    title: dict[str, str] = Field(default_factory=dict, description="the rule's title by language")
    matched: dict[str, Any] = Field(default_factory=dict, description="what the rule's condition read, and its values")
    arguments: dict[str, Any] = Field(default_factory=dict)
    position: int = Field(ge=0, description="its place among the commands of its event")

    def to_json(self) -> bytes:
        """Its JSON."""
        return orjson.dumps(self.__dict__)

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read and check; raises pydantic.ValidationError."""
        return cls.model_validate_json(raw)


def promise(command_id: str) -> dict[str, str]:
    """Stand in for the result of a command that is yet to be carried out."""
    return {"$promise": command_id}


def promised(value: object) -> str | None:
    """The command whose result this value stands for, None when it is a plain value."""
    if isinstance(value, dict) and len(value) == 1:
        found = value.get("$promise")
        return found if isinstance(found, str) else None
    return None
