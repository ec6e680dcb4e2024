"""From a record to the event in it, as boards may rely on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from hub.engine.parking import EDITED
from hub.engine.parking import read_event as read_record
from hub.errors import RejectedError
from hub.log.event_log import Record
from schemas.decoding import RecordedEvent
from schemas.decoding import read as read_recorded
from schemas.envelope import Event
from schemas.registry import event_spec

NUL = "\x00"
_NUL = b"\\u0000"
_WIDEST = 2**63
INSTEAD = "\N{REPLACEMENT CHARACTER}"


def read_event(record: Record) -> Event | None:
    """The event, or None for a record that holds none: not JSON, no event, or data that its type does not allow.

    Such a record comes from a foreign writer; the processor parks it with its bytes, so a board may pass it over.
    """
    try:
        event = read_record(record).as_event()
        event_spec(event.type).model.__pydantic_validator__.validate_python(event.data)
    except (RejectedError, ValidationError):
        return None
    # One look spares nearly every event the walk through all of its values.
    if _NUL in (record.value or b"") or _is_odd(event.data):
        return Event.model_construct(**_storable(event.model_dump()))
    return event


def read_plain(record: Record) -> RecordedEvent | None:
    """The event as it lies there, whatever its data and its key are; None for a record that holds none.

    Also what the processor has parked is looked up by people.
    """
    try:
        return read_recorded(record.value or b"")
    except ValidationError:
        return None


def _is_odd(data: Mapping[str, Any]) -> bool:
    """Whether a number that no store can hold is in it; flat data of text costs next to nothing."""
    return any(map(_has_odd, [value for value in data.values() if type(value) is not str]))


def _has_odd(value: Any) -> bool:
    match value:
        case float():
            return not math.isfinite(value)
        case int():
            return not -_WIDEST <= value < _WIDEST
        case dict():
            return _is_odd(value)
        case list():
            return any(_has_odd(inner) for inner in value)
        case _:
            return False


def corrected(event: Event) -> Event | None:
    """What a correction of parked work puts in the place of what came, so that boards show what the case goes on with.

    None for every other event, and for a correction that is no good event of its case.
    """
    told = event.data.get("event") if event.type == EDITED else None
    if not isinstance(told, dict):
        return None
    return read_event(Record("", 0, 0, event.case.encode(), orjson.dumps(told)))


def _storable(value: Any) -> Any:
    """Without NUL, which PostgreSQL's text cannot hold, infinities, which its JSON cannot, and integers that orjson cannot."""
    match value:
        case str():
            return value.replace(NUL, INSTEAD)
        case float() | int():
            return str(value) if _has_odd(value) else value
        case dict():
            return {_storable(name): _storable(inner) for name, inner in value.items()}
        case list():
            return [_storable(inner) for inner in value]
        case _:
            return value
