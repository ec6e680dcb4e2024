"""From a record to the event in it, as boards may rely on it."""

from __future__ import annotations

import math
from typing import Any

from pydantic import ValidationError

from hub.errors import RejectedError
from hub.event_log import Record
from hub.parking import read_event as read_record
from schemas.catalog import event_spec
from schemas.event import Event

NUL = "\x00"
INSTEAD = "\N{REPLACEMENT CHARACTER}"


def read_event(record: Record) -> Event | None:
    """The event, or None for a record that holds none: not JSON, no event, or data that its type does not allow.

    Such a record comes from a foreign writer; the processor parks it with its bytes, so a board may pass it over.
    """
    try:
        event = read_record(record)
        event_spec(event.type).model.model_validate(event.data)
    except (RejectedError, ValidationError):
        return None
    if b"\\u0000" in (record.value or b""):
        return Event.model_construct(**_storable(event.model_dump()))
    return event.model_copy(update={"data": _storable(event.data)})


def _storable(value: Any) -> Any:
    """Without NUL, which PostgreSQL's text cannot hold, and without infinities, which its JSON cannot: stores hold the same."""
    match value:
        case str():
            return value.replace(NUL, INSTEAD)
        case float():
            return value if math.isfinite(value) else str(value)
        case dict():
            return {_storable(name): _storable(inner) for name, inner in value.items()}
        case list():
            return [_storable(inner) for inner in value]
        case _:
            return value
