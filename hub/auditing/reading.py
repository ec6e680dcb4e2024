"""What lies in one partition: its records by case, the processor's states, and what was given up there."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError

from hub.event_log import EventLog, Record, read_to_end
from schemas.catalog import event_spec
from schemas.event import MAX_BYTES, Event, is_reference
from schemas.topics import COMMANDS, EVENTS, STATE

EDITED = "hub.parked.edited"
IGNORED = "hub.delivery.ignored"
PLACE, APART = b"\x00place", b"\xff"
"""The key of how far the partition is folded; what stands in a key between a case and the name of a part of it."""
NOTHING: Mapping[str, Any] = {"data": {}, "sources": {}, "version": "", "time": "", "stage": None, "entered": {}}
"""What a state record leaves out of an object."""


@dataclass(frozen=True)
class Filed:
    """One record of `hub.events`. `event` None: nobody can read it. `ref` is its name where it is parked."""

    offset: int
    time: float
    ref: str
    event: Event | None


@dataclass
class Partition:
    """The records of a partition, in the order of the log."""

    number: int
    cases: dict[bytes, list[Filed]] = field(default_factory=dict)
    loose: list[Filed] = field(default_factory=list)
    """Under no case's key: parked by themselves."""
    repeats: int = 0
    doubled: list[str] = field(default_factory=list)
    """Events that came again as another: with a sequence of their own."""


@dataclass(frozen=True)
class State:
    """What the processor remembers of a case, and the offset that this reflects."""

    offset: int = -1
    entities: dict[str, Any] | None = field(default_factory=dict)
    """None: none are kept."""
    held: frozenset[int] = frozenset()
    spans: tuple[tuple[int, int], ...] | None = None
    """Of a case that is forgotten: between which offsets its records lie."""


@dataclass(frozen=True)
class States:
    """What the processor keeps of a partition: its cases, and the next offset that it will fold."""

    cases: Mapping[bytes, State]
    next_offset: int


def partition(log: EventLog, number: int) -> Partition:
    """File a partition's records, each event once by its id."""
    found = Partition(number)
    seen: dict[str, tuple[str | None, str | None]] = {}
    for record in _records(log, EVENTS.name, number):
        event = _event(record)
        if event is not None:
            mark = (event.outbox, event.sequence)
            before = seen.setdefault(event.id, mark)
            if before is not mark:
                found.repeats += 1
                found.doubled += [event.id] if before != mark else []
                continue
        _file(found, record, event)
    return found


def _file(found: Partition, record: Record, event: Event | None) -> None:
    ref = f"event/{event.id}" if event else f"record/{record.topic}/{record.partition}/{record.offset}"
    filed = Filed(record.offset, record.time, ref, event)
    if record.key is not None and _is_case(record.key):
        found.cases.setdefault(record.key, []).append(filed)
    else:
        found.loose.append(filed)


def _is_case(key: bytes) -> bool:
    """What lies under another key belongs to nobody, and the processor keeps nothing of it."""
    try:
        return is_reference(key.decode())
    except UnicodeDecodeError:
        return False


def _event(record: Record) -> Event | None:
    raw = record.value
    if not raw or len(raw) > 2 * MAX_BYTES or record.key is None:
        return None
    try:
        event = Event.from_json(raw)
        if event.case.encode() != record.key:
            return None
        return lifted(event)
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        return None


def lifted(event: Event) -> Event:
    """The event with data of its type's current version; raises what an upcaster raises."""
    spec, version = event_spec(event.type), event.dataschema.rpartition(":")[2]
    if event.dataschema == spec.dataschema or not version.isdecimal() or int(version) == spec.version:
        return event
    return event.model_copy(update={"data": spec.lift(dict(event.data), int(version)), "dataschema": spec.dataschema})


def corrected(event: Event) -> Event | None:
    """What a correction puts in the place of a parked record; None for any other event, and for one of another case."""
    if event.type != EDITED:
        return None
    try:
        told = lifted(Event.model_validate(event.data.get("event")))
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return told if told.case == event.case else None


def states(log: EventLog, number: int) -> States:
    """The newest state of each case, by the offset that it reflects; what is no state of a case is passed over."""
    newest, next_offset = dict[bytes, tuple[int, dict[str, Any]]](), 0
    for record in _records(log, STATE.name, number):
        if record.key is None:
            continue
        if record.value is None:
            newest.pop(record.key, None)
            continue
        told = _read(record.value)
        if record.key == PLACE:
            next_offset = max(next_offset, told.get("place", 0) if isinstance(told.get("place"), int) else 0)
        elif _is_case(record.key.partition(APART)[0]) and _offset(told) >= newest.get(record.key, (0, {}))[0]:
            newest[record.key] = (_offset(told), told)
    return States(_joined(newest), next_offset)


def _offset(told: Mapping[str, Any]) -> int:
    offset = told.get("offset")
    return offset if isinstance(offset, int) else -1


def _joined(newest: Mapping[bytes, tuple[int, dict[str, Any]]]) -> dict[bytes, State]:
    """Each case of its own record and of those of what is apart; what both have, the case's own has."""
    apart = dict[bytes, dict[str, dict[str, Any]]]()
    for key, (_, told) in newest.items():
        case, found, name = key.partition(APART)
        if found:
            apart.setdefault(case, {})[name.decode(errors="replace")] = told
    cases = dict[bytes, State]()
    for key, (offset, told) in newest.items():
        state = _state(offset, told, apart.get(key, {})) if APART not in key else None
        if state is not None:
            cases[key] = state
    return cases


def _state(offset: int, told: Mapping[str, Any], apart: Mapping[str, Mapping[str, Any]]) -> State | None:
    try:
        if "forgotten" in told:
            return State(offset, None, spans=_spans(told["forgotten"]))
        case = told["case"]
        entities = {name: part["entity"] for name, part in apart.items() if name[:1] not in "#!"}
        entities |= case.get("entities", {})
        first, last = case.get("numbers", (0, 0))
        behind = {name[1:]: part.get("held") for name, part in apart.items() if name[:1] == "!"}
        behind |= case.get("behind", {})
        held = [*case.get("held", ()), *(behind.get(str(number)) for number in range(first, last))]
        return State(
            offset,
            {ref: {**NOTHING, **entity} for ref, entity in entities.items()},
            frozenset(entry["offset"] for entry in held if entry is not None),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _spans(row: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """First and last offset of each stretch; the row has how far each begins behind the last one's end, and how far it goes."""
    ends = list(itertools.accumulate(row))
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _read(raw: bytes) -> dict[str, Any]:
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def given_up(log: EventLog, number: int) -> set[str]:
    """What the processor says was discarded."""
    found = set[str]()
    for record in _records(log, COMMANDS.name, number):
        if b'"settled"' not in (record.value or b""):
            continue
        try:
            told = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(told, dict) and told.get("record") == "settled" and told.get("state") == "discarded":
            found.add(str(told.get("ref")))
    return found


def _records(log: EventLog, topic: str, number: int) -> Iterator[Record]:
    for batch in read_to_end(log, topic, {number: log.starts(topic).get(number, 0)}):
        yield from batch
