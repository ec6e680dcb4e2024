"""What the audit reads: the records and processor states of one partition, and the trimmed events of the ledger.

Its two containers bound memory: `IntegerRanges` grows only with the number of gaps, whatever numbers a foreign producer
writes, and `TrimmedEvents` takes 16 bytes an event, and one byte more that marks it as seen.
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
class IntegerRanges:
    """A set of integers as sorted, disjoint ranges: `starts[i]` to `ends[i]`, both included; no two ranges adjoin."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, first: int, last: int | None = None) -> None:
        """Add `first`, or all from `first` to `last`; adds nothing when `last` is below `first`."""
        last = first if last is None else last
        if last < first:
            return
        low = bisect_left(self.ends, first - 1)  # the first range that reaches up to `first`
        high = low
        while high < len(self.starts) and self.starts[high] <= last + 1:
            high += 1
        if low < high:
            first, last = min(first, self.starts[low]), max(last, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [first], [last]

    @property
    def largest(self) -> int:
        """The largest number; 0 when the set is empty."""
        return self.ends[-1] if self.ends else 0

    def missing(self, last: int) -> Iterator[tuple[int, int]]:
        """The gaps between 1 and `last`, each as its first and last number."""
        expected = 1
        for start, end in zip(self.starts, self.ends, strict=True):
            if start > last:
                break
            if start > expected:
                yield expected, start - 1
            expected = max(expected, end + 1)
        if expected <= last:
            yield expected, last


@dataclass
class TrimmedEvents:
    """The events whose rows the ledger has trimmed, by the 128-bit hash of their id. `in` looks up an event id."""

    firsts: array[int] = field(default_factory=lambda: array("Q"))
    rests: array[int] = field(default_factory=lambda: array("Q"))
    """The upper and lower 64 bits of each hash, sorted."""
    _in_log: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, conn: Connection) -> TrimmedEvents:
        """All trimmed events of a ledger."""
        events = cls()
        for key in trimmed.all_hashes(conn):
            events.firsts.append(int.from_bytes(key[:8], "big"))
            events.rests.append(int.from_bytes(key[8:], "big"))
        events._in_log = bytearray(len(events.firsts))
        return events

    def __len__(self) -> int:
        return len(self.firsts)

    def __contains__(self, event_id: object) -> bool:
        return self._at(str(event_id)) is not None

    def mark_in_log(self, event_ids: Iterable[str]) -> None:
        """Note that the log has these events."""
        for event_id in event_ids if self.firsts else ():
            at = self._at(event_id)
            if at is not None:
                self._in_log[at] = 1

    def missing_from_log(self) -> Iterator[str]:
        """The hashes of the events that were not marked."""
        for at, is_in_log in enumerate(self._in_log):
            if not is_in_log:
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
    """Every event that the ledger has accepted: those with an outbox row, and those that are trimmed."""

    rows: Container[str]
    trimmed: TrimmedEvents

    def __contains__(self, event_id: object) -> bool:
        return event_id in self.rows or event_id in self.trimmed


EDITED = "hub.parked.edited"
IGNORED = "hub.delivery.ignored"
POSITION_KEY, PART_SEPARATOR = b"\x00place", b"\xff"
"""Key of the record with the partition's fold position; separator between a case id and the name of a part in a state key."""
ENTITY_DEFAULTS: Mapping[str, Any] = {
    "data": {},
    "sources": {},
    "version": "",
    "time": "",
    "stage": None,
    "entered": {},
}
"""The defaults that a state record omits from an entity."""


@dataclass(frozen=True)
class AuditedRecord:
    """One record of `hub.events`. `event` is None when it cannot be decoded; `ref` identifies it in the parked work."""

    offset: int
    time: float
    ref: str
    event: Event | None


@dataclass
class PartitionRecords:
    """The records of a partition, in the order of the log."""

    number: int
    cases: dict[bytes, list[AuditedRecord]] = field(default_factory=dict)
    loose: list[AuditedRecord] = field(default_factory=list)
    """Records whose key is no case id: each is parked by itself."""
    repeats: int = 0
    resequenced: list[str] = field(default_factory=list)
    """Ids of events that came again under another sequence or outbox."""


@dataclass(frozen=True)
class ProcessorState:
    """The processor's state of one case, and the offset that it reflects."""

    offset: int = -1
    entities: dict[str, Any] | None = field(default_factory=dict)
    """None: the state holds no entities."""
    held: frozenset[int] = frozenset()
    spans: tuple[tuple[int, int], ...] | None = None
    """Of an expired case: the offset ranges that hold its records."""


@dataclass(frozen=True)
class ProcessorStates:
    """The processor's states of one partition, by case key, and the next offset that it will fold."""

    cases: Mapping[bytes, ProcessorState]
    next_offset: int


def read_partition(log: EventLog, number: int) -> PartitionRecords:
    """Group a partition's records by case, each event once by its id."""
    records = PartitionRecords(number)
    sequences: dict[str, tuple[str | None, str | None]] = {}
    for record in _records(log, EVENTS.name, number):
        event = _event(record)
        if event is not None:
            sequence = (event.outbox, event.sequence)
            first = sequences.setdefault(event.id, sequence)
            if first is not sequence:
                records.repeats += 1
                records.resequenced += [event.id] if first != sequence else []
                continue
        _file(records, record, event)
    return records


def _file(records: PartitionRecords, record: Record, event: Event | None) -> None:
    ref = f"event/{event.id}" if event else f"record/{record.topic}/{record.partition}/{record.offset}"
    audited = AuditedRecord(record.offset, record.time, ref, event)
    if record.key is not None and _is_case(record.key):
        records.cases.setdefault(record.key, []).append(audited)
    else:
        records.loose.append(audited)


def _is_case(key: bytes) -> bool:
    """Whether a key is a case id. Records under any other key belong to no case, and the processor stores nothing for them."""
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
        return upcast(event)
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        return None


def upcast(event: Event) -> Event:
    """The event with its data lifted to the current version of its type; raises what an upcaster raises."""
    spec, version = event_spec(event.type), event.dataschema.rpartition(":")[2]
    if event.dataschema == spec.dataschema or not version.isdecimal() or int(version) == spec.version:
        return event
    return event.model_copy(update={"data": spec.lift(dict(event.data), int(version)), "dataschema": spec.dataschema})


def correction_in(event: Event) -> Event | None:
    """The event with which a correction replaces a parked record; None for any other event, or one of another case."""
    if event.type != EDITED:
        return None
    try:
        correction = upcast(Event.model_validate(event.data.get("event")))
    except (ValidationError, KeyError, ValueError, TypeError, AttributeError):
        return None
    return correction if correction.case == event.case else None


def read_states(log: EventLog, number: int) -> ProcessorStates:
    """The newest state of each case, by the offset that it reflects; records that are no case state are skipped."""
    newest, next_offset = dict[bytes, tuple[int, dict[str, Any]]](), 0
    for record in _records(log, STATE.name, number):
        if record.key is None:
            continue
        if record.value is None:
            newest.pop(record.key, None)
            continue
        state = _read(record.value)
        if record.key == POSITION_KEY:
            next_offset = max(next_offset, state.get("place", 0) if isinstance(state.get("place"), int) else 0)
        elif _is_case(record.key.partition(PART_SEPARATOR)[0]) and _offset(state) >= newest.get(record.key, (0, {}))[0]:
            newest[record.key] = (_offset(state), state)
    return ProcessorStates(_joined(newest), next_offset)


def _offset(state: Mapping[str, Any]) -> int:
    offset = state.get("offset")
    return offset if isinstance(offset, int) else -1


def _joined(newest: Mapping[bytes, tuple[int, dict[str, Any]]]) -> dict[bytes, ProcessorState]:
    """Join each case's own record with the records of its separate parts; where both have an entry, the case's own wins."""
    parts = dict[bytes, dict[str, dict[str, Any]]]()
    for key, (_, record) in newest.items():
        case, separator, name = key.partition(PART_SEPARATOR)
        if separator:
            parts.setdefault(case, {})[name.decode(errors="replace")] = record
    cases = dict[bytes, ProcessorState]()
    for key, (offset, record) in newest.items():
        state = _state(offset, record, parts.get(key, {})) if PART_SEPARATOR not in key else None
        if state is not None:
            cases[key] = state
    return cases


def _state(offset: int, record: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> ProcessorState | None:
    try:
        if "forgotten" in record:
            return ProcessorState(offset, None, spans=_spans(record["forgotten"]))
        case = record["case"]
        entities = {name: part["entity"] for name, part in parts.items() if name[:1] not in "#!"}
        entities |= case.get("entities", {})
        first, last = case.get("numbers", (0, 0))
        behind = {name[1:]: part.get("held") for name, part in parts.items() if name[:1] == "!"}
        behind |= case.get("behind", {})
        held = [*case.get("held", ()), *(behind.get(str(number)) for number in range(first, last))]
        return ProcessorState(
            offset,
            {ref: {**ENTITY_DEFAULTS, **entity} for ref, entity in entities.items()},
            frozenset(entry["offset"] for entry in held if entry is not None),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _spans(row: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """First and last offset of each range. `row` is delta-encoded: the distance from the previous end, then the length."""
    ends = list(itertools.accumulate(row))
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _read(raw: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def read_discarded(log: EventLog, number: int) -> set[str]:
    """The refs of the parked work that the processor recorded as discarded."""
    refs = set[str]()
    for record in _records(log, COMMANDS.name, number):
        if b'"settled"' not in (record.value or b""):
            continue
        try:
            value = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict) and value.get("record") == "settled" and value.get("state") == "discarded":
            refs.add(str(value.get("ref")))
    return refs


def _records(log: EventLog, topic: str, number: int) -> Iterator[Record]:
    for batch in read_to_end(log, topic, {number: log.starts(topic).get(number, 0)}):
        yield from batch
