"""Events as the log has them, read at less than half of the cost: what is plain to see is checked here, all else by `Event`.

Whatever is read here `Event.from_json` would read as well, and say the same of it; whatever it would refuse is left to it.
"""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Literal

import msgspec

from schemas.envelope import REFERENCE, STAMP, TYPE, Event, EventParts

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
_Short = Annotated[str, msgspec.Meta(max_length=400)]


class RecordedEvent(EventParts, msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """An `Event` as it was read; its attributes are described there.

    What is not one of them is not looked at in the short way, so an event that has more goes the long one.
    """

    specversion: Literal["1.0"] = "1.0"
    id: _Name
    source: _Name
    type: str
    subject: _Short
    time: str
    claimedtime: str | None = None
    recordedtime: str
    dataschema: _Name
    datacontenttype: Literal["application/json"] = "application/json"
    partitionkey: _Short
    correlationid: str
    causationid: _Name | None = None
    subjectversion: _Name | None = None
    sequence: str | None = None
    outbox: _Name | None = None
    actor: _Short | None = None
    origin: _Name | None = None
    traceparent: _Name | None = None
    clears: list[_Name] | None = None
    data: dict[str, Any] = {}

    def as_event(self) -> Event:
        """The same, for readers that want more of it than its attributes."""
        return Event.trusted(msgspec.structs.asdict(self))


AnyEvent = Event | RecordedEvent
"""One that was made here, or one that was read."""


def read(raw: bytes) -> RecordedEvent:
    """Read and check CloudEvents JSON; raises pydantic.ValidationError, also for bytes that are no JSON."""
    try:
        told = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _checked(raw)
    return told if _is_plain(told) and _is_shallow(told.data, raw) else _checked(raw)


def _checked(raw: bytes) -> RecordedEvent:
    return RecordedEvent(**Event.from_json(raw).__dict__)


_decode = msgspec.json.Decoder(RecordedEvent).decode
_MAY_BE_DEEP = {dict, list}
_MOST_NESTED = 100
"""Lists and maps, from which on they might be nested deeper than the other reader goes."""
_STAMPS = re.compile(STAMP * 2)
_TYPE = re.compile(TYPE)
_REFERENCE = re.compile(REFERENCE)


def _is_plain(told: RecordedEvent) -> bool:
    case, subject, sequence, actor = told.partitionkey, told.subject, told.sequence, told.actor
    return (
        told.correlationid == case
        and told.claimedtime is None
        and _is_type(told.type)
        and len(told.time) == len(told.recordedtime)  # or one might make good what the other lacks
        and _STAMPS.fullmatch(told.time + told.recordedtime) is not None
        and _is_reference(case)
        and (subject == case or _is_reference(subject))
        and (sequence is None or (sequence.isascii() and sequence.isdigit() and len(sequence) < 20))
        and (actor is None or _is_reference(actor))
    )


def _is_shallow(data: dict[str, Any], raw: bytes) -> bool:
    return _MAY_BE_DEEP.isdisjoint(map(type, data.values())) or raw.count(b"[") + raw.count(b"{") < _MOST_NESTED


@functools.lru_cache(50_000)
def _is_reference(text: str) -> bool:
    """Most events are of a case that had some before."""
    return _REFERENCE.fullmatch(text) is not None


@functools.lru_cache(10_000)
def _is_type(text: str) -> bool:
    return len(text) <= 100 and _TYPE.fullmatch(text) is not None
