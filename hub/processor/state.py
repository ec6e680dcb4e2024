"""Where the processor keeps its cases: in the compacted topic `hub.state`, beside the events they were folded from.

A small case is one record. A large one has one that holds what its last events have changed, and beside it a record of each
entity, under the case's key and the entity's name. What an event changes stands in the case's own record first, and is put apart
with the next one; so that record alone says how far the case is, and a crash between two records leaves nothing halfway.

A case that is over is forgotten after a while: what stays is a record that says where in the log its records lie.

A state record carries the log offset that it reflects. A partition is taken over by reading its state to the end; a worker that
had it before reads only what has come since. Of two records of a case the one with the higher offset holds, so a stale
writer's late word does not take a case back.
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
    Asked,
    Case,
    Entity,
    Held,
    PartRecord,
    altered,
    from_json,
    part_from_json,
    part_to_json,
    to_json,
)
from hub.errors import FatalError
from hub.log.event_log import EventLog, Outgoing, Record, read_to_end
from hub.log.sequences import ReadPosition
from hub.processor.case_expiry import Over, Spans, packed, unpacked
from schemas.topics import STATE

_OFFSET = b'{"offset":'
_FORGOTTEN, _OVER = b',"forgotten":[', b',"over":"'
_PACKED = b"\x01"
UNPACKED = 1 << 20
"""Bytes of a partition's cases that are kept as they are when they were touched: what is at work now costs no packing."""
AT_ONCE = 10_000
"""State records in one reading."""
LARGE = 16 * 1024
"""Bytes of a case's record, from which on it is put apart."""
APART = b"\xff"
"""Between a case's key and the name of what is apart; no key that is a text has it. Names: an entity's reference, `#` and the id of
a command, `!` and the number of what is parked."""
PLACE = b"\x00place"
"""The key under which a partition's own place lies beside its cases; no case is called so."""


@dataclass
class PartitionState:
    """The cases of one partition, as bytes until they are touched; those that were not touched lately are packed."""

    partition: int
    cases: dict[bytes, bytes] = field(default_factory=dict)
    """Key → a state record as it lies in the topic, or packed; also of what is apart."""
    names: dict[bytes, set[bytes]] = field(default_factory=dict)
    """A case's key → the names of what is apart."""
    forgotten: dict[bytes, bytes] = field(default_factory=dict)
    """Key of a case that is forgotten → the offset that it reflected, and the spans of its records."""
    over: Over = field(default_factory=Over)
    leftover: list[bytes] = field(default_factory=list)
    """Keys of what was apart of forgotten cases, and still lies in the topic."""
    clock: str = ""
    """The latest time at which a record that was folded was recorded."""
    read_to: int = 0
    """The next offset of `hub.state` to read."""
    ahead: bool = False
    """Whether it was changed by a chunk whose states are not known to be in the topic."""
    place: ReadPosition | None = None
    """How far `hub.events` is folded, by offset and sequences; None where nothing was, or by a version that kept none."""
    late: set[bytes] = field(default_factory=set)
    """Keys whose last record in the topic was overtaken by an earlier one: `hub.processor.stale_writes` says ours again."""
    _touched: dict[bytes, int] = field(default_factory=dict)
    """Cases that are not packed and the bytes of each, those touched longest ago first."""
    _unpacked: int = 0
    """Their bytes together."""

    @property
    def folded(self) -> int | None:
        """The offset up to which everything is folded, as far as is known: None where nothing is."""
        if self.place is not None:
            return self.place.next_offset
        return (
            0 if self.cases or self.forgotten else None
        )  # a version before this one kept no place; what its cases reflect comes to nothing

    def empty(self) -> None:
        """Forget all of it, to be read anew from the start."""
        self.cases, self.names, self.forgotten, self.over, self.leftover, self.clock = {}, {}, {}, Over(), [], ""
        self.read_to, self.ahead, self.place, self.late = 0, False, None, set()
        self._touched, self._unpacked = {}, 0

    def take(self, records: Iterable[Record]) -> None:
        """Take state records in, newest offset first in rank. Raises FatalError for one that is none."""
        cases, late = self.cases, self.late
        for _, _, offset, key, value, _ in records:
            self.read_to = offset + 1
            if key is None:
                continue
            if key == PLACE:
                self._take_place(value)
            elif value is None:
                self._drop(key)
                late.discard(key)
            else:
                try:
                    known, fresh = cases.get(key) or self.forgotten.get(key), fresh_of(value)
                    if known is None or offset_of(fresh) >= offset_of(known):
                        self._take(key, value, fresh)
                        late.discard(key)
                        if known is None and APART in key:
                            self._name(key)
                    else:
                        late.add(key)
                except (ValueError, KeyError, TypeError, OverflowError) as error:
                    raise self._unreadable(key) from error

    def _take(self, key: bytes, raw: bytes, fresh: bytes) -> None:
        """Take the newest record of a case, or of what is apart."""
        end = raw.find(b",", len(_OFFSET))
        if raw.startswith(_FORGOTTEN, end):
            self.cases.pop(key, None)
            self.forgotten[key] = fresh
            self.over.note(key, "")
            return
        self.cases[key] = fresh
        if self.forgotten:
            self.forgotten.pop(key, None)
        if raw.startswith(_OVER, end):
            at = end + len(_OVER)
            self.over.note(key, raw[at : raw.index(b'"', at)].decode())
        else:
            self.over.note(key, "")

    def _take_place(self, raw: bytes | None) -> None:
        place = read_place(raw)
        if place is None:
            return
        if self.place is None or place.next_offset >= self.place.next_offset:
            self.place, self.clock = place, read_clock(raw)
            self.late.discard(PLACE)
        else:
            self.late.add(PLACE)

    def keep_place(self, place: ReadPosition) -> list[Outgoing]:
        """Remember a place, and give the record that makes it last, if there is anything new in it.

        To be sent behind the states of the cases: it says that they are there.
        """
        if place == self.place:
            return []
        self.place = place
        return [self._place_record(place)]

    def _place_record(self, place: ReadPosition) -> Outgoing:
        raw = orjson.dumps({"place": place.next_offset, "sequences": place.sequences, "clock": self.clock})
        return Outgoing(STATE.name, PLACE, raw, self.partition)

    def said(self, key: bytes) -> Outgoing | None:
        """The record of a case, or of the place, once more; None for a case that is not known."""
        if key == PLACE:
            return self._place_record(self.place) if self.place is not None else None
        if key in self.forgotten:
            return self._stub(key)
        raw = self.cases.get(key)
        return None if raw is None else Outgoing(STATE.name, key, unpack(raw), self.partition)

    def reflects(self, key: bytes) -> int:
        """The log offset that a case's state, or the place, reflects; -1 for one that is not known."""
        if key == PLACE:
            return self.place.next_offset if self.place is not None else -1
        raw = self.cases.get(key) or self.forgotten.get(key)
        return -1 if raw is None else offset_of(raw)

    def get(self, key: bytes) -> Case | None:
        """The case under a key; raises FatalError for state that cannot be read."""
        return self.read(key)[0]

    def read(self, key: bytes) -> tuple[Case | None, int]:
        """As `get`, and the bytes of the case's own record."""
        raw = self.cases.get(key)
        if raw is None:
            return None, 0
        try:
            plain = unpack(raw)
            case = from_json(plain)[0]
        except (msgspec.DecodeError, UnicodeDecodeError, cramjam.DecompressionError) as error:
            raise self._unreadable(key) from error
        return altered(case, apart=CaseParts(self, key)) if case.is_apart else case, len(plain)

    def part(self, key: bytes) -> PartRecord | None:
        """What is apart under a key; raises FatalError for state that cannot be read."""
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
        """Where the records of a forgotten case lie."""
        return unpacked(self.forgotten[key][9:])

    def forget(self, until: str, most: int, are_sure: Callable[[int, int], bool]) -> list[Outgoing]:
        """Forget the cases that are over since then or longer, and give the records that make it last, in their order.

        `are_sure` says of a first and a last offset whether what lies between would be judged as it was: else the case stays.
        Of some the last records wait for the next time where there are more than `most`. A case's own record is the first of it
        to be replaced: that alone says that it is forgotten, and no crash leaves anything halfway.
        """
        sent = list[Outgoing]()
        for key in self.over.until(until):
            case = self.get(key)
            if case is None or not case.spans or not are_sure(case.spans[0], sum(case.spans)):
                continue
            self.forgotten[key] = stub(self.reflects(key), case.spans)
            self._drop(key)
            self._unpacked -= self._touched.pop(key, 0)
            self.leftover += self._drop_parts(key)
            sent.append(self._stub(key))
            if len(sent) + len(self.leftover) > most:
                break
        gone, self.leftover = self.leftover[:most], self.leftover[most:]
        # What has come back since has records of the same names.
        return sent + [Outgoing(STATE.name, inner, None, self.partition) for inner in gone if inner not in self.cases]

    def _stub(self, key: bytes) -> Outgoing:
        raw = b"%s%d%s%s]}" % (_OFFSET, self.reflects(key), _FORGOTTEN, b",".join(b"%d" % n for n in self.spans(key)))
        return Outgoing(STATE.name, key, raw, self.partition)

    def _drop_parts(self, key: bytes) -> list[bytes]:
        """Drop what is apart of a case; their keys."""
        inner = [key + APART + name for name in sorted(self.names.pop(key, ()))]
        for each in inner:
            self.cases.pop(each, None)
            self._unpacked -= self._touched.pop(each, 0)
        return inner

    def clear(self) -> None:
        """Drop what is still apart of forgotten cases: a worker has ended amid forgetting them, or one was late."""
        for key in [key for key in self.names if key in self.forgotten]:
            self.leftover += self._drop_parts(key)

    def bring_back(self, other: PartitionState, keys: Iterable[bytes]) -> list[Outgoing]:
        """Take over cases that were forgotten, as they were folded once more; the records that make large ones last."""
        sent = list[Outgoing]()
        for key in keys:
            self.forgotten.pop(key, None)
            if key not in other.cases:  # the log keeps nothing of it any more
                continue
            names = [key + APART + name for name in sorted(other.names.get(key, ()))]
            for each in (*names, key):
                raw = unpack(other.cases[each])
                if each != key and each not in self.cases:
                    self._name(each)
                self._put(each, raw)
                sent += [Outgoing(STATE.name, each, raw, self.partition)] if names else []
        return sent

    def keep(self, key: bytes, case: Case, offset: int, before: Case | None = None, clock: str = "") -> list[Outgoing]:
        """Remember a case, and give the records that make it last, to be sent in this order.

        `before` is the case as it was read of here: what of it is the same still is put apart once the case is large. `clock` is
        the partition's at its last record.
        """
        over = clock if case.spans and case.is_over else ""
        self.over.note(key, over)
        if not case.is_apart:
            raw = to_json(case, offset, over)
            if before is None or len(raw) <= LARGE:
                self._put(key, raw)
                return [Outgoing(STATE.name, key, raw, self.partition)]
        assert before is not None  # one that is apart was read of here
        moved, gone = self._put_apart(key, case, before), self._taken_up(key, case, before)
        raw = to_json(_changed(case, before), offset, over)
        self._put(key, raw)
        return [*moved, Outgoing(STATE.name, key, raw, self.partition), *gone]

    def _put_apart(self, key: bytes, case: Case, before: Case) -> list[Outgoing]:
        """The records of what the case's record has had to itself until now and has not changed."""
        offset, sent = self.reflects(key), list[Outgoing]()
        for name, part in _unchanged(case, before, offset):
            raw, inner = part_to_json(part), key + APART + name.encode()
            if inner not in self.cases:
                self._name(inner)
            self._put(inner, raw)
            sent.append(Outgoing(STATE.name, inner, raw, self.partition))
        return sent

    def _taken_up(self, key: bytes, case: Case, before: Case) -> list[Outgoing]:
        """The ends of the records of what was parked and is so no longer."""
        numbers = range(before.numbers[0], case.numbers[0])
        gone = [inner for number in numbers if (inner := key + APART + b"!%d" % number) in self.cases]
        for inner in gone:
            self._drop(inner)
        return [Outgoing(STATE.name, inner, None, self.partition) for inner in gone]

    def _put(self, key: bytes, raw: bytes) -> None:
        self.cases[key] = raw
        self._touch(key, len(raw))

    def _name(self, key: bytes) -> None:
        case, _, name = key.partition(APART)
        self.names.setdefault(case, set()).add(name)

    def _drop(self, key: bytes) -> None:
        self.cases.pop(key, None)
        case, found, name = key.partition(APART)
        if found:
            self.names.get(case, set()).discard(name)

    def _touch(self, key: bytes, size: int) -> None:
        self._unpacked += size - self._touched.pop(key, 0)
        self._touched[key] = size
        if self._unpacked > UNPACKED:
            self._pack_until(UNPACKED // 2)

    def _pack_until(self, most: int) -> None:
        """Pack those touched longest ago until so many bytes are left."""
        for old in list(self._touched):
            if self._unpacked <= most:
                return
            self._unpacked -= self._touched.pop(old)
            if old in self.cases:
                self.cases[old] = pack(self.cases[old])


def _unchanged(case: Case, before: Case, offset: int) -> Iterator[tuple[str, PartRecord]]:
    for ref, entity in case.entities.items():
        if before.entities.get(ref) is entity:
            yield ref, PartRecord(offset, entity=entity)
    for command, asked in case.asked.items():
        if before.asked.get(command) is asked:
            yield f"#{command}", PartRecord(offset, asked=asked)
    for number, held in case.behind.items():
        if number in before.behind and before.behind[number] is held:
            yield f"!{number}", PartRecord(offset, held=held)


def _changed(case: Case, before: Case) -> Case:
    """What of a case is not put apart by `_unchanged`."""
    return altered(
        case,
        entities={ref: entity for ref, entity in case.entities.items() if before.entities.get(ref) is not entity},
        asked={command: asked for command, asked in case.asked.items() if before.asked.get(command) is not asked},
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
    """What of a case is apart, read as it is looked for."""

    state: PartitionState
    key: bytes
    read: int = 0
    """Bytes that were read since the last `taken`."""

    def taken(self) -> int:
        """How many bytes were read since this was asked last."""
        read, self.read = self.read, 0
        return read

    def entity(self, ref: str) -> Entity | None:
        """An entity."""
        part = self._part(ref)
        return part.entity if part is not None else None

    def asked(self, command: str) -> Asked | None:
        """What was asked for by this command."""
        part = self._part(f"#{command}")
        return part.asked if part is not None else None

    def held(self, number: int) -> Held | None:
        """The parked event of this number; None when it was discarded."""
        part = self._part(f"!{number}")
        return part.held if part is not None else None

    def refs(self) -> Iterator[str]:
        """The references of its entities."""
        return (name.decode() for name in self.state.names.get(self.key, ()) if name[:1] not in b"#!")

    def _part(self, name: str) -> PartRecord | None:
        key = self.key + APART + name.encode()
        raw = self.state.cases.get(key)
        if raw is None:
            return None
        self.read += len(raw)
        return self.state.part(key)


def catch_up(log: EventLog, states: Mapping[int, PartitionState]) -> int:
    """Read the state topic to its end, for partitions that were just assigned; how many records.

    A state that is ahead of the topic is read anew from the start: its chunk comes again, and would be taken for a repeat.
    """
    for state in states.values():
        if state.ahead:
            state.empty()
    starts = log.starts(STATE.name)
    seen = 0
    for batch in read_to_end(
        log, STATE.name, {p: max(state.read_to, starts[p]) for p, state in states.items()}, limit=AT_ONCE
    ):
        seen += len(batch)
        for partition, records in groupby(batch, attrgetter("partition")):
            states[partition].take(records)
    for state in states.values():
        state.clear()
    return seen


def read_place(raw: bytes | None) -> ReadPosition | None:
    """The place in a state record; None for a record that holds none."""
    try:
        told = orjson.loads(raw or b"")
        return ReadPosition(int(told["place"]), {str(outbox): int(last) for outbox, last in told["sequences"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_clock(raw: bytes | None) -> str:
    """The clock in the record of a place; empty in one of a version that had none."""
    clock = orjson.loads(raw or b"{}").get("clock")
    return clock if isinstance(clock, str) else ""


def offset_of(raw: bytes) -> int:
    """The log offset in a state record, packed or not, without reading the rest: it stands first."""
    if raw[:1] == _PACKED:
        return int.from_bytes(raw[1:9], "big")
    if not raw.startswith(_OFFSET):
        return int(orjson.loads(raw)["offset"])
    end = raw.find(b",", len(_OFFSET))
    return int(raw[len(_OFFSET) : end])


def said_of(key: bytes, raw: bytes) -> int:
    """The log offset in a record of a case or of the place; -1 for one that says none, which whoever restores it is told of."""
    try:
        if key != PLACE:
            return offset_of(raw)
        place = read_place(raw)
        return place.next_offset if place is not None else -1
    except (ValueError, KeyError, TypeError):
        return -1


def fresh_of(raw: bytes) -> bytes:
    """A record of the topic as it is kept: packed, or of a forgotten case what it says."""
    end = raw.find(b",", len(_OFFSET))
    if not raw.startswith(_FORGOTTEN, end):
        return pack(raw)
    return stub(int(raw[len(_OFFSET) : end]), orjson.loads(raw[end + len(_FORGOTTEN) - 1 : -1]))


def stub(offset: int, spans: Sequence[int]) -> bytes:
    """What is kept of a forgotten case."""
    return _PACKED + offset.to_bytes(8, "big") + packed(spans)


def pack(raw: bytes) -> bytes:
    """A state record in less memory, its offset apart; cheap enough to be done with each case that is restored."""
    if raw[:1] == _PACKED:
        return raw
    return _PACKED + offset_of(raw).to_bytes(8, "big") + bytes(cramjam.lz4.compress_block(raw))


def unpack(raw: bytes) -> bytes:
    """The record as it lies in the topic."""
    return bytes(cramjam.lz4.decompress_block(raw[9:])) if raw[:1] == _PACKED else raw
