"""Decodes log records to events for boards: valid by their schema, and storable in every database."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from hub.engine.parking import PARKED_EDITED
from hub.engine.parking import read_event as read_record
from hub.errors import RejectedError
from hub.log.event_log import Record
from schemas.decoding import RecordedEvent
from schemas.decoding import read as read_recorded
from schemas.envelope import Event
from schemas.registry import event_spec

NUL = "\x00"
_NUL = b"\\u0000"
_INT64 = 2**63
NUL_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read_event(record: Record) -> Event | None:
    """The event, or None for an invalid record: not JSON, no event, or data that its type does not allow.

    Such a record comes from a foreign producer; the processor parks it with its bytes, so a board may skip it.
    """
    try:
        event = read_record(record).as_event()
        event_spec(event.type).model.__pydantic_validator__.validate_python(event.data)
    except (RejectedError, ValidationError):
        return None
    # One search of the bytes saves nearly every event the walk through all of its values.
    if _NUL in (record.value or b"") or _is_unstorable(event.data):
        return Event.model_construct(**_storable(event.model_dump()))
    return event


def read_unchecked(record: Record) -> RecordedEvent | None:
    """The event without checks of its data and key; None for a record without an event.

    For lookups by people, who also look up what the processor has parked.
    """
    try:
        return read_recorded(record.value or b"")
    except ValidationError:
        return None


def _is_unstorable(data: Mapping[str, Any]) -> bool:
    """Whether the data has a number that some database cannot store; cheap for flat data of text."""
    return any(map(_has_unstorable, [value for value in data.values() if type(value) is not str]))


def _has_unstorable(value: Any) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case int():
            return not -_INT64 <= value < _INT64
        case dict():
            return _is_unstorable(value)
        case list():
            return any(_has_unstorable(inner) for inner in value)
        case _:
            return False


def corrected(event: Event) -> Event | None:
    """The event that a correction of parked work substitutes, so that boards show the event that the case continues with.

    None for every other event, and for a correction that is no valid event of its case.
    """
    correction = event.data.get("event") if event.type == PARKED_EDITED else None
    if not isinstance(correction, dict):
        return None
    return read_event(Record("", 0, 0, event.case.encode(), orjson.dumps(correction)))


def _storable(value: Any) -> Any:
    """The value without NUL (refused by PostgreSQL's text), infinities (by its JSON) and integers beyond 64 bits (by orjson)."""
    match value:
        case str():
            return value.replace(NUL, NUL_REPLACEMENT)
        case float() | int():
            return str(value) if _has_unstorable(value) else value
        case dict():
            return {_storable(name): _storable(inner) for name, inner in value.items()}
        case list():
            return [_storable(inner) for inner in value]
        case _:
            return value
