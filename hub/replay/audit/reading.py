"""What lies in one partition: its records by case, the processor's states, and what was given up there.

Sets of whole numbers that come mostly in order, kept as runs: as small as they have gaps, whatever numbers a stranger writes.

The events whose rows are gone from the ledger, by the keys that they left: 16 bytes of memory each, and a mark.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import ValidationError
from sqlalchemy import Connection

from hub.ledger import trimmed
from hub.log.event_log import EventLog, Record, read_to_end
from schemas.envelope import MAX_BYTES, Event, is_reference
from schemas.registry import event_spec
from schemas.topics import COMMANDS, EVENTS, STATE


@dataclass
class Runs:
    """A set of whole numbers: `starts[i]` to `ends[i]`, both in it, in order, and no two of them adjoin."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, first: int, last: int | None = None) -> None:
        """Add a number, or all from `first` to `last`; nothing when `last` is before it."""
        last = first if last is None else last
        if last < first:
            return
        low = bisect_left(self.ends, first - 1)  # the first run that reaches up to it
        high = low
        while high < len(self.starts) and self.starts[high] <= last + 1:
            high += 1
        if low < high:
            first, last = min(first, self.starts[low]), max(last, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [first], [last]

    @property
    def largest(self) -> int:
        """The largest; 0 when it is empty."""
        return self.ends[-1] if self.ends else 0

    def missing(self, last: int) -> Iterator[tuple[int, int]]:
        """The gaps between 1 and `last`, each as its first and its last number."""
        due = 1
        for start, end in zip(self.starts, self.ends, strict=True):
            if start > last:
                break
            if start > due:
                yield due, start - 1
            due = max(due, end + 1)
        if due <= last:
            yield due, last


@dataclass
class Trimmed:
    """`in` asks for an event by its id."""

    firsts: array[int] = field(default_factory=lambda: array("Q"))
    rests: array[int] = field(default_factory=lambda: array("Q"))
    """The two halves of each key, in the order of keys."""
    _seen: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, conn: Connection) -> Trimmed:
        """All that a ledger has."""
        found = cls()
        for key in trimmed.all_hashes(conn):
            found.firsts.append(int.from_bytes(key[:8], "big"))
            found.rests.append(int.from_bytes(key[8:], "big"))
        found._seen = bytearray(len(found.firsts))
        return found

    def __len__(self) -> int:
        return len(self.firsts)

    def __contains__(self, event_id: object) -> bool:
        return self._at(str(event_id)) is not None

    def see(self, event_ids: Iterable[str]) -> None:
        """Note that the log has these."""
        for event_id in event_ids if self.firsts else ():
            at = self._at(event_id)
            if at is not None:
                self._seen[at] = 1

    def unseen(self) -> Iterator[str]:
        """The keys of those that the log was not seen to have."""
        for at, seen in enumerate(self._seen):
            if not seen:
                yield f"{self.firsts[at]:016x}{self.rests[at]:016x}"

    def _at(self, event_id: str) -> int | None:
        key = trimmed.id_hash(event_id)
        first, rest = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = bisect_left(self.firsts, first)
        while at < len(self.firsts) and self.firsts[at] == first:
            if self.rests[at] == rest:
                return at
            at += 1
        return None


@dataclass(frozen=True)
class LedgerEvents:
    """Every event that the ledger has taken in: those with a row, and those that are trimmed."""

    rows: Container[str]
    trimmed: Trimmed

    def __contains__(self, event_id: object) -> bool:
        return event_id in self.rows or event_id in self.trimmed


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
class ProcessorState:
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

    cases: Mapping[bytes, ProcessorState]
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


def _joined(newest: Mapping[bytes, tuple[int, dict[str, Any]]]) -> dict[bytes, ProcessorState]:
    """Each case of its own record and of those of what is apart; what both have, the case's own has."""
    apart = dict[bytes, dict[str, dict[str, Any]]]()
    for key, (_, told) in newest.items():
        case, found, name = key.partition(APART)
        if found:
            apart.setdefault(case, {})[name.decode(errors="replace")] = told
    cases = dict[bytes, ProcessorState]()
    for key, (offset, told) in newest.items():
        state = _state(offset, told, apart.get(key, {})) if APART not in key else None
        if state is not None:
            cases[key] = state
    return cases


def _state(offset: int, told: Mapping[str, Any], apart: Mapping[str, Mapping[str, Any]]) -> ProcessorState | None:
    try:
        if "forgotten" in told:
            return ProcessorState(offset, None, spans=_spans(told["forgotten"]))
        case = told["case"]
        entities = {name: part["entity"] for name, part in apart.items() if name[:1] not in "#!"}
        entities |= case.get("entities", {})
        first, last = case.get("numbers", (0, 0))
        behind = {name[1:]: part.get("held") for name, part in apart.items() if name[:1] == "!"}
        behind |= case.get("behind", {})
        held = [*case.get("held", ()), *(behind.get(str(number)) for number in range(first, last))]
        return ProcessorState(
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
