"""The processor's state store: the cases, in the compacted topic `hub.state`, partitioned as the events they are folded from.

A small case is one record. A large case is split: its own record has what its last events changed, and each entity has a separate
record under the case's key and the entity's name. A change is written to the case's own record first and moves to a separate
record with the next change. So the case's own record alone decides how far the case is folded, and a crash between two records
leaves no partial state.

An ended case is forgotten after a while: a record with the offset ranges of its events in the log remains.

A state record carries the log offset that it reflects. A worker takes a partition over by reading its state to the end; one that
had it before reads only the newer records. Of two records of a case the one with the higher offset wins, so a stale write does
not set a case back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import cramjam
import msgspec
import orjson

from hub.engine.case import (
    Case,
    Entity,
    HeldEvent,
    PartRecord,
    RequestedWork,
    from_json,
    part_from_json,
    part_to_json,
    replace,
    to_json,
)
from hub.errors import FatalError
from hub.log.event_log import EventLog, Outgoing, Record, read_to_end
from hub.log.sequences import ReadPosition
from hub.processor.case_expiry import EndedCases, Spans, decode_spans, encode_spans
from schemas.topics import STATE

_OFFSET = b'{"offset":'
_FORGOTTEN, _OVER = b',"forgotten":[', b',"over":"'
_PACKED = b"\x01"
MAX_UNPACKED_BYTES = 1 << 20
"""Bytes of a partition's recently used cases that stay uncompressed in memory: active cases cost no compression."""
READ_BATCH = 10_000
"""State records in one read."""
LARGE_CASE_BYTES = 16 * 1024
"""Bytes of a case's record above which the case is split into separate records."""
PART_SEPARATOR = b"\xff"
"""Separates a case's key from the name of a separate record; no UTF-8 text contains it. Names: an entity's reference, `#` and a
command's id, `!` and the number of a parked event."""
POSITION_KEY = b"\x00place"
"""The key of a partition's read position among its cases; no case has this key."""


@dataclass
class PartitionState:
    """The cases of one partition, as bytes until they are used; those not used recently are compressed."""

    partition: int
    cases: dict[bytes, bytes] = field(default_factory=dict)
    """Key → a state record as in the topic, or compressed; separate records too."""
    names: dict[bytes, set[bytes]] = field(default_factory=dict)
    """A case's key → the names of its separate records."""
    forgotten: dict[bytes, bytes] = field(default_factory=dict)
    """Key of a forgotten case → the offset that it reflected, and the spans of its events."""
    over: EndedCases = field(default_factory=EndedCases)
    leftover: list[bytes] = field(default_factory=list)
    """Keys of forgotten cases' separate records that are still in the topic."""
    clock: str = ""
    """The latest `recordedtime` of a folded record."""
    read_to: int = 0
    """The next offset of `hub.state` to read."""
    ahead: bool = False
    """Whether a chunk changed it whose states are not known to be in the topic."""
    place: ReadPosition | None = None
    """How far `hub.events` is folded, by offset and sequences; None where nothing is, or an earlier version stored none."""
    stale: set[bytes] = field(default_factory=set)
    """Keys whose last record in the topic is older than the one before it: `hub.processor.stale_writes` rewrites ours."""
    _touched: dict[bytes, int] = field(default_factory=dict)
    """Uncompressed cases → the bytes of each, least recently used first."""
    _unpacked: int = 0
    """Their bytes together."""

    @property
    def folded(self) -> int | None:
        """The offset up to which everything is folded, as far as is known: None before the first record."""
        if self.place is not None:
            return self.place.next_offset
        # An earlier version stored no position; records that its cases reflect already change nothing.
        return 0 if self.cases or self.forgotten else None

    def empty(self) -> None:
        """Drop everything, so that it is read again from the start."""
        self.cases, self.names, self.forgotten, self.over, self.leftover, self.clock = {}, {}, {}, EndedCases(), [], ""
        self.read_to, self.ahead, self.place, self.stale = 0, False, None, set()
        self._touched, self._unpacked = {}, 0

    def take(self, records: Iterable[Record]) -> None:
        """Apply state records; the one with the higher log offset wins. Raises FatalError for one that cannot be read."""
        cases, stale = self.cases, self.stale
        for _, _, offset, key, value, _ in records:
            self.read_to = offset + 1
            if key is None:
                continue
            if key == POSITION_KEY:
                self._take_place(value)
            elif value is None:
                self._drop(key)
                stale.discard(key)
            else:
                try:
                    known, cached = cases.get(key) or self.forgotten.get(key), cached_form(value)
                    if known is None or offset_of(cached) >= offset_of(known):
                        self._take(key, value, cached)
                        stale.discard(key)
                        if known is None and PART_SEPARATOR in key:
                            self._name(key)
                    else:
                        stale.add(key)
                except (ValueError, KeyError, TypeError, OverflowError) as error:
                    raise self._unreadable(key) from error

    def _take(self, key: bytes, raw: bytes, cached: bytes) -> None:
        """Apply the newest record of a case, or a separate record."""
        end = raw.find(b",", len(_OFFSET))
        if raw.startswith(_FORGOTTEN, end):
            self.cases.pop(key, None)
            self.forgotten[key] = cached
            self.over.note(key, "")
            return
        self.cases[key] = cached
        if self.forgotten:
            self.forgotten.pop(key, None)
        if raw.startswith(_OVER, end):
            at = end + len(_OVER)
            self.over.note(key, raw[at : raw.index(b'"', at)].decode())
        else:
            self.over.note(key, "")

    def _take_place(self, raw: bytes | None) -> None:
        place = read_position(raw)
        if place is None:
            return
        if self.place is None or place.next_offset >= self.place.next_offset:
            self.place, self.clock = place, read_clock(raw)
            self.stale.discard(POSITION_KEY)
        else:
            self.stale.add(POSITION_KEY)

    def keep_place(self, place: ReadPosition) -> list[Outgoing]:
        """Store a position, and return the record to send, if it has changed.

        To be sent after the states of the cases: it confirms that they are there.
        """
        if place == self.place:
            return []
        self.place = place
        return [self._place_record(place)]

    def _place_record(self, place: ReadPosition) -> Outgoing:
        raw = orjson.dumps({"place": place.next_offset, "sequences": place.sequences, "clock": self.clock})
        return Outgoing(STATE.name, POSITION_KEY, raw, self.partition)

    def record_of(self, key: bytes) -> Outgoing | None:
        """The current record of a case, or of the position, to be written again; None for an unknown case."""
        if key == POSITION_KEY:
            return self._place_record(self.place) if self.place is not None else None
        if key in self.forgotten:
            return self._stub(key)
        raw = self.cases.get(key)
        return None if raw is None else Outgoing(STATE.name, key, unpack(raw), self.partition)

    def reflects(self, key: bytes) -> int:
        """The log offset that a case's state, or the position, reflects; -1 for an unknown case."""
        if key == POSITION_KEY:
            return self.place.next_offset if self.place is not None else -1
        raw = self.cases.get(key) or self.forgotten.get(key)
        return -1 if raw is None else offset_of(raw)

    def get(self, key: bytes) -> Case | None:
        """The case under a key; raises FatalError for state that cannot be read."""
        return self.read(key)[0]

    def read(self, key: bytes) -> tuple[Case | None, int]:
        """As `get`, and the size of the case's own record in bytes."""
        raw = self.cases.get(key)
        if raw is None:
            return None, 0
        try:
            plain = unpack(raw)
            case = from_json(plain)[0]
        except (msgspec.DecodeError, UnicodeDecodeError, cramjam.DecompressionError) as error:
            raise self._unreadable(key) from error
        return replace(case, apart=CaseParts(self, key)) if case.is_apart else case, len(plain)

    def part(self, key: bytes) -> PartRecord | None:
        """The separate record under a key; raises FatalError for state that cannot be read."""
        raw = self.cases.get(key)
        if raw is None:
            return None
        try:
            return part_from_json(unpack(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, cramjam.DecompressionError) as error:
            raise self._unreadable(key) from error

    def _unreadable(self, key: bytes) -> FatalError:
        return FatalError("HUB-E6020", partition=self.partition, key=key.decode(errors="replace"))

    def spans(self, key: bytes) -> Spans:
        """The offset ranges of a forgotten case's events in the log."""
        return decode_spans(self.forgotten[key][9:])

    def forget(self, until: str, limit: int, are_sure: Callable[[int, int], bool]) -> list[Outgoing]:
        """Forget the cases that ended at `until` or before, and return the records to send, in their order.

        `are_sure` returns, for a first and a last offset, whether the rules that decided the records between are known: else the
        case stays. Beyond `limit` records, the tombstones of separate records wait for the next call. A case's own record is
        replaced first: it alone marks the case as forgotten, so a crash leaves no partial state.
        """
        records = list[Outgoing]()
        for key in self.over.until(until):
            case = self.get(key)
            if case is None or not case.spans or not are_sure(case.spans[0], sum(case.spans)):
                continue
            self.forgotten[key] = stub(self.reflects(key), case.spans)
            self._drop(key)
            self._unpacked -= self._touched.pop(key, 0)
            self.leftover += self._drop_parts(key)
            records.append(self._stub(key))
            if len(records) + len(self.leftover) > limit:
                break
        gone, self.leftover = self.leftover[:limit], self.leftover[limit:]
        # A case that was restored since has records under the same keys.
        return records + [
            Outgoing(STATE.name, inner, None, self.partition) for inner in gone if inner not in self.cases
        ]

    def _stub(self, key: bytes) -> Outgoing:
        raw = b"%s%d%s%s]}" % (_OFFSET, self.reflects(key), _FORGOTTEN, b",".join(b"%d" % n for n in self.spans(key)))
        return Outgoing(STATE.name, key, raw, self.partition)

    def _drop_parts(self, key: bytes) -> list[bytes]:
        """Drop the separate records of a case; return their keys."""
        inner = [key + PART_SEPARATOR + name for name in sorted(self.names.pop(key, ()))]
        for each in inner:
            self.cases.pop(each, None)
            self._unpacked -= self._touched.pop(each, 0)
        return inner

    def clear(self) -> None:
        """Drop separate records of forgotten cases: a worker ended while forgetting them, or an expired one wrote them."""
        for key in [key for key in self.names if key in self.forgotten]:
            self.leftover += self._drop_parts(key)

    def bring_back(self, other: PartitionState, keys: Iterable[bytes]) -> list[Outgoing]:
        """Restore forgotten cases from `other`, where they were folded again; return the records of large ones to send."""
        records = list[Outgoing]()
        for key in keys:
            self.forgotten.pop(key, None)
            if key not in other.cases:  # the log retains none of its events
                continue
            names = [key + PART_SEPARATOR + name for name in sorted(other.names.get(key, ()))]
            for each in (*names, key):
                raw = unpack(other.cases[each])
                if each != key and each not in self.cases:
                    self._name(each)
                self._put(each, raw)
                records += [Outgoing(STATE.name, each, raw, self.partition)] if names else []
        return records

    def keep(self, key: bytes, case: Case, offset: int, before: Case | None = None, clock: str = "") -> list[Outgoing]:
        """Store a case, and return its records to send, in this order.

        `before` is the case as it was read here: once the case is large, its unchanged parts move to separate records. `clock` is
        the partition's clock at its last record.
        """
        over = clock if case.spans and case.is_over else ""
        self.over.note(key, over)
        if not case.is_apart:
            raw = to_json(case, offset, over)
            if before is None or len(raw) <= LARGE_CASE_BYTES:
                self._put(key, raw)
                return [Outgoing(STATE.name, key, raw, self.partition)]
        assert before is not None  # a split case was read here
        moved, gone = self._put_apart(key, case, before), self._tombstones(key, case, before)
        raw = to_json(_changed(case, before), offset, over)
        self._put(key, raw)
        return [*moved, Outgoing(STATE.name, key, raw, self.partition), *gone]

    def _put_apart(self, key: bytes, case: Case, before: Case) -> list[Outgoing]:
        """The separate records of what was in the case's own record until now and has not changed."""
        offset, records = self.reflects(key), list[Outgoing]()
        for name, part in _unchanged(case, before, offset):
            raw, inner = part_to_json(part), key + PART_SEPARATOR + name.encode()
            if inner not in self.cases:
                self._name(inner)
            self._put(inner, raw)
            records.append(Outgoing(STATE.name, inner, raw, self.partition))
        return records

    def _tombstones(self, key: bytes, case: Case, before: Case) -> list[Outgoing]:
        """The tombstones of events that are no longer parked."""
        numbers = range(before.numbers[0], case.numbers[0])
        gone = [inner for number in numbers if (inner := key + PART_SEPARATOR + b"!%d" % number) in self.cases]
        for inner in gone:
            self._drop(inner)
        return [Outgoing(STATE.name, inner, None, self.partition) for inner in gone]

    def _put(self, key: bytes, raw: bytes) -> None:
        self.cases[key] = raw
        self._touch(key, len(raw))

    def _name(self, key: bytes) -> None:
        case, _, name = key.partition(PART_SEPARATOR)
        self.names.setdefault(case, set()).add(name)

    def _drop(self, key: bytes) -> None:
        self.cases.pop(key, None)
        case, found, name = key.partition(PART_SEPARATOR)
        if found:
            self.names.get(case, set()).discard(name)

    def _touch(self, key: bytes, size: int) -> None:
        self._unpacked += size - self._touched.pop(key, 0)
        self._touched[key] = size
        if self._unpacked > MAX_UNPACKED_BYTES:
            self._pack_until(MAX_UNPACKED_BYTES // 2)

    def _pack_until(self, limit: int) -> None:
        """Compress the least recently used cases until at most `limit` bytes are uncompressed."""
        for old in list(self._touched):
            if self._unpacked <= limit:
                return
            self._unpacked -= self._touched.pop(old)
            if old in self.cases:
                self.cases[old] = pack(self.cases[old])


def _unchanged(case: Case, before: Case, offset: int) -> Iterator[tuple[str, PartRecord]]:
    for ref, entity in case.entities.items():
        if before.entities.get(ref) is entity:
            yield ref, PartRecord(offset, entity=entity)
    for command, work in case.requested.items():
        if before.requested.get(command) is work:
            yield f"#{command}", PartRecord(offset, requested=work)
    for number, held in case.behind.items():
        if number in before.behind and before.behind[number] is held:
            yield f"!{number}", PartRecord(offset, held=held)


def _changed(case: Case, before: Case) -> Case:
    """The case without the parts that `_unchanged` moves to separate records."""
    return replace(
        case,
        entities={ref: entity for ref, entity in case.entities.items() if before.entities.get(ref) is not entity},
        requested={
            command: work for command, work in case.requested.items() if before.requested.get(command) is not work
        },
        behind={
            number: held
            for number, held in case.behind.items()
            if number not in before.behind or before.behind[number] is not held
        },
        is_apart=True,
        apart=msgspec.UNSET,
    )


@dataclass
class CaseParts:
    """The separate records of a case, read on access."""

    state: PartitionState
    key: bytes
    read: int = 0
    """Bytes read since the last `taken`."""

    def taken(self) -> int:
        """The bytes read since the last call."""
        read, self.read = self.read, 0
        return read

    def entity(self, ref: str) -> Entity | None:
        """The entity with this reference."""
        part = self._part(ref)
        return part.entity if part is not None else None

    def requested(self, command: str) -> RequestedWork | None:
        """The work that this command requested."""
        part = self._part(f"#{command}")
        return part.requested if part is not None else None

    def held(self, number: int) -> HeldEvent | None:
        """The parked event of this number; None when it was discarded."""
        part = self._part(f"!{number}")
        return part.held if part is not None else None

    def refs(self) -> Iterator[str]:
        """The references of its entities."""
        return (name.decode() for name in self.state.names.get(self.key, ()) if name[:1] not in b"#!")

    def _part(self, name: str) -> PartRecord | None:
        key = self.key + PART_SEPARATOR + name.encode()
        raw = self.state.cases.get(key)
        if raw is None:
            return None
        self.read += len(raw)
        return self.state.part(key)


def catch_up(log: EventLog, states: Mapping[int, PartitionState]) -> int:
    """Read the state topic to its end, for partitions that were just assigned; return how many records.

    A state that is ahead of the topic is read again from the start: its chunk is redelivered, and would pass for a repeat.
    """
    for state in states.values():
        if state.ahead:
            state.empty()
    starts = log.starts(STATE.name)
    count = 0
    for batch in read_to_end(
        log, STATE.name, {p: max(state.read_to, starts[p]) for p, state in states.items()}, limit=READ_BATCH
    ):
        count += len(batch)
        for partition, records in groupby(batch, attrgetter("partition")):
            states[partition].take(records)
    for state in states.values():
        state.clear()
    return count


def read_position(raw: bytes | None) -> ReadPosition | None:
    """The position in a state record; None for a record without one."""
    try:
        stored = orjson.loads(raw or b"")
        return ReadPosition(
            int(stored["place"]), {str(outbox): int(last) for outbox, last in stored["sequences"].items()}
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_clock(raw: bytes | None) -> str:
    """The clock in a position's record; empty in one of a version that stored none."""
    clock = orjson.loads(raw or b"{}").get("clock")
    return clock if isinstance(clock, str) else ""


def offset_of(raw: bytes) -> int:
    """The log offset in a state record, compressed or not. It comes first, so the rest is not decoded."""
    if raw[:1] == _PACKED:
        return int.from_bytes(raw[1:9], "big")
    if not raw.startswith(_OFFSET):
        return int(orjson.loads(raw)["offset"])
    end = raw.find(b",", len(_OFFSET))
    return int(raw[len(_OFFSET) : end])


def stored_offset(key: bytes, raw: bytes) -> int:
    """The log offset in a record of a case or of the position; -1 for an unreadable one, which a restore reports as an error."""
    try:
        if key != POSITION_KEY:
            return offset_of(raw)
        place = read_position(raw)
        return place.next_offset if place is not None else -1
    except (ValueError, KeyError, TypeError):
        return -1


def cached_form(raw: bytes) -> bytes:
    """A record of the topic as it is held in memory: compressed, or a forgotten case's offset and spans."""
    end = raw.find(b",", len(_OFFSET))
    if not raw.startswith(_FORGOTTEN, end):
        return pack(raw)
    return stub(int(raw[len(_OFFSET) : end]), orjson.loads(raw[end + len(_FORGOTTEN) - 1 : -1]))


def stub(offset: int, spans: Sequence[int]) -> bytes:
    """A forgotten case in memory: its offset and the spans of its events."""
    return _PACKED + offset.to_bytes(8, "big") + encode_spans(spans)


def pack(raw: bytes) -> bytes:
    """A state record, compressed, with its offset in front; cheap enough for every case that is restored."""
    if raw[:1] == _PACKED:
        return raw
    return _PACKED + offset_of(raw).to_bytes(8, "big") + bytes(cramjam.lz4.compress_block(raw))


def unpack(raw: bytes) -> bytes:
    """The record as in the topic."""
    return bytes(cramjam.lz4.decompress_block(raw[9:])) if raw[:1] == _PACKED else raw
