"""What the log says of each object, folded once more in as few words as it takes. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from schemas.envelope import Event
from schemas.registry import event_spec

Thing = dict[str, Any]
"""An object: `data`, `sources` (field → [source, time]; also of a field that was cleared), `version`, `time`, `stage`, `entered`
(stage → times), `was` (the stage before it was deleted)."""
DELETED = "deleted"
VIEWED = ("data", "sources", "version", "time", "stage")
"""What the shared view tells of it."""


def things(events: Iterable[Event], *, stored: bool = False) -> dict[str, Thing]:
    """Reference → object, after these events of one case in their order. `stored`: with values as the boards' store takes them."""
    found: dict[str, Thing] = {}
    for event in events:
        thing = found.get(event.subject)
        if thing is None:
            thing = {"data": {}, "sources": {}, "version": "", "time": "", "stage": None, "entered": {}, "was": None}
            found[event.subject] = thing
        told = {**dict.fromkeys(event.clears or ()), **_with_values(event.data)}
        tell(thing, event, storable(told) if stored else told)
    return found


def _with_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """What an event tells of its subject. A null says nothing: what is emptied is named in `clears`."""
    return {name: value for name, value in data.items() if value is not None}


def tell(thing: Thing, event: Event, data: Mapping[str, Any]) -> None:
    """Fold one event in: the newest version wins field by field, and an older one only fills in what is missing.

    A null empties the field.
    """
    newest, untold = _is_newest(thing, event), event_spec(event.type).untold
    for name, value in data.items():
        if name in untold or (name in thing["sources"] and not newest):
            continue
        thing["sources"][name] = [event.source, event.time]
        if value is None:
            thing["data"].pop(name, None)
        else:
            thing["data"][name] = value
    _enter(thing, event, newest)
    if newest:
        thing["version"] = event.subjectversion or thing["version"]
        thing["time"] = event.time


def _is_newest(thing: Thing, event: Event) -> bool:
    mine, theirs = thing["version"], event.subjectversion
    if not mine or not theirs:
        return True  # versions of two sources cannot be compared: the log's order counts
    if mine.isdecimal() and theirs.isdecimal():
        return int(theirs) >= int(mine)
    return event.time >= str(thing["time"])


def _enter(thing: Thing, event: Event, newest: bool) -> None:
    """A stage is entered once until it was left. News of the past count it once, and take back no later stage.

    Being deleted is no leaving: what its source tells of again later is where it was.
    """
    spec = event_spec(event.type)
    stage, entered = spec.stage, thing["entered"]
    if thing["stage"] == DELETED and newest and stage != DELETED:
        thing["stage"], thing["was"] = thing["was"], None
    now = thing["stage"]
    if stage is None or stage == now:
        return
    past = not newest or (spec.opens and now is not None)
    if past and stage in entered:
        return
    entered[stage] = entered.get(stage, 0) + 1
    if not past:
        thing["stage"], thing["was"] = stage, now if stage == DELETED else None


def digest(thing: Mapping[str, Any], parts: Iterable[str] = (*VIEWED, "entered")) -> bytes:
    """A hash of these parts of an object: the same wherever it was kept."""
    told = {part: thing.get(part) for part in parts}
    return hashlib.blake2b(_canonical(told), digest_size=16).digest()


def _canonical(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer that is wider than 64 bits
        return repr(value).encode(errors="replace")


def storable(value: Any) -> Any:
    """As a database's text and JSON can hold it: no NUL, no infinity, no integer beyond 64 bits."""
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
