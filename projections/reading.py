"""From a record to the event in it: lifted to its current version and checked against its model."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from hub.event_log import Record
from schemas.catalog import event_spec
from schemas.event import MAX_BYTES, Event

NUL = "\x00"
INSTEAD = "\N{REPLACEMENT CHARACTER}"


def read_event(record: Record) -> Event | None:
    """The event, or None for a record that holds none: not JSON, no event, or data that its type does not allow.

    Such a record comes from a foreign writer; the processor parks it with its bytes, so a board may pass it over.
    """
    if record.value is None or len(record.value) > 2 * MAX_BYTES:
        return None
    try:
        event = Event.from_json(record.value)
        spec = event_spec(event.type)
        data = spec.lift(event.data, event.version)
        spec.model.model_validate(data)
    except (ValidationError, ValueError, KeyError):
        return None
    lifted = event.model_copy(update={"data": data})
    return Event.model_construct(**_storable(lifted.model_dump())) if b"\\u0000" in record.value else lifted


def _storable(value: Any) -> Any:
    """Without NUL: PostgreSQL's text cannot hold it, and both stores must hold the same."""
    match value:
        case str():
            return value.replace(NUL, INSTEAD)
        case dict():
            return {_storable(name): _storable(inner) for name, inner in value.items()}
        case list():
            return [_storable(inner) for inner in value]
        case _:
            return value
