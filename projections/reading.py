"""From a record to the event in it, as boards may rely on it."""

from __future__ import annotations

import math
import re
from typing import Any

from pydantic import ValidationError

from hub.errors import RejectedError
from hub.event_log import Record
from hub.parking import read_event as read_record
from schemas.catalog import event_spec
from schemas.event import Event

NUL = "\x00"
_ODD = re.compile(rb"\\u0000|NaN|Infinity|[0-9][eE]\+?[0-9]{3}")
"""What may be NUL, or a number that becomes infinite."""
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
    # One look at the bytes spares nearly every event the walk through its values.
    return Event.model_construct(**_storable(event.model_dump())) if _ODD.search(record.value or b"") else event


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
