"""The audit's own fold of the log into entity states: a second, minimal implementation. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from schemas.envelope import Event
from schemas.registry import event_spec

EntityState = dict[str, Any]
"""An entity: `data`, `sources` (field → [source, time]; also of a field that was cleared), `version`, `time`, `stage`, `entered`
(stage → times), `was` (the stage before it was deleted)."""
DELETED = "deleted"
VIEW_FIELDS = ("data", "sources", "version", "time", "stage")
"""The parts of an entity that the shared view has."""


def fold_entities(events: Iterable[Event], *, stored: bool = False) -> dict[str, EntityState]:
    """Reference → entity, after these events of one case in order. `stored`: with values as the boards' store holds them."""
    entities: dict[str, EntityState] = {}
    for event in events:
        entity = entities.get(event.subject)
        if entity is None:
            entity = {"data": {}, "sources": {}, "version": "", "time": "", "stage": None, "entered": {}, "was": None}
            entities[event.subject] = entity
        data = {**dict.fromkeys(event.clears or ()), **_with_values(event.data)}
        apply_event(entity, event, storable(data) if stored else data)
    return entities


def _with_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that an event sets. A null sets nothing: emptied fields are named in `clears`."""
    return {name: value for name, value in data.items() if value is not None}


def apply_event(entity: EntityState, event: Event, data: Mapping[str, Any]) -> None:
    """Fold one event in: the newest version wins field by field, and an older one only fills in what is missing.

    A null empties the field.
    """
    newest, skipped = _is_newest(entity, event), event_spec(event.type).log_only
    for name, value in data.items():
        if name in skipped or (name in entity["sources"] and not newest):
            continue
        entity["sources"][name] = [event.source, event.time]
        if value is None:
            entity["data"].pop(name, None)
        else:
            entity["data"][name] = value
    _enter(entity, event, newest)
    if newest:
        entity["version"] = event.subjectversion or entity["version"]
        entity["time"] = event.time


def _is_newest(entity: EntityState, event: Event) -> bool:
    current, incoming = entity["version"], event.subjectversion
    if not current or not incoming:
        return True  # versions of two sources cannot be compared: the log's order counts
    if current.isdecimal() and incoming.isdecimal():
        return int(incoming) >= int(current)
    return event.time >= str(entity["time"])


def _enter(entity: EntityState, event: Event, newest: bool) -> None:
    """Count the stage that an event enters. A stage counts again only after the entity has left it.

    An event older than the entity's version counts its stage once, and does not move the entity back from a later stage.
    Deletion does not leave a stage: an entity that its source reports again is back in the stage it had before.
    """
    spec = event_spec(event.type)
    stage, entered = spec.stage, entity["entered"]
    if entity["stage"] == DELETED and newest and stage != DELETED:
        entity["stage"], entity["was"] = entity["was"], None
    now = entity["stage"]
    if stage is None or stage == now:
        return
    past = not newest or (spec.opens and now is not None)
    if past and stage in entered:
        return
    entered[stage] = entered.get(stage, 0) + 1
    if not past:
        entity["stage"], entity["was"] = stage, now if stage == DELETED else None


def digest(entity: Mapping[str, Any], parts: Iterable[str] = (*VIEW_FIELDS, "entered")) -> bytes:
    """A 16-byte hash of these parts of an entity: equal for equal content, whichever store it came from."""
    content = {part: entity.get(part) for part in parts}
    return hashlib.blake2b(_canonical(content), digest_size=16).digest()


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer that is wider than 64 bits
        return repr(value).encode(errors="replace")


def storable(value: Any) -> Any:
    """The value as a database's text and JSON columns can hold it: no NUL, no infinity, no integer beyond 64 bits."""
    match value:
        case str():
            return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
        case bool():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case int():
            return value if -(2**63) <= value < 2**63 else str(value)
        case dict():
            return {storable(name): storable(inner) for name, inner in value.items()}
        case list():
            return [storable(inner) for inner in value]
        case _:
            return value
