"""Where the processor keeps its cases: in the compacted topic `hub.state`, beside the events they were folded from.

A state record carries the log offset that it reflects. A partition is taken over by reading its state to the end; a worker that
had it before reads only what has come since. Of two records of a case the one with the higher offset holds, so a stale
writer's late word does not take a case back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import cramjam
import msgspec
import orjson

from hub.case import Case, from_json, to_json
from hub.errors import FatalError
from hub.event_log import EventLog, Outgoing, Record, read_to_end
from hub.sequences import Place
from schemas.topics import STATE

_OFFSET = b'{"offset":'
_PACKED = b"\x01"
UNPACKED = 1 << 20
"""Bytes of a partition's cases that are kept as they are when they were touched: what is at work now costs no packing."""
AT_ONCE = 10_000
"""State records in one reading."""
PLACE = b"\x00place"
"""The key under which a partition's own place lies beside its cases; no case is called so."""


@dataclass
class PartitionState:
    """The cases of one partition, as bytes until they are touched; those that were not touched lately are packed."""

    partition: int
    cases: dict[bytes, bytes] = field(default_factory=dict)
    """Key → a state record as it lies in the topic, or packed."""
    read_to: int = 0
    """The next offset of `hub.state` to read."""
    ahead: bool = False
    """Whether it was changed by a chunk whose states are not known to be in the topic."""
    place: Place | None = None
    """How far `hub.events` is folded, by offset and sequences; None where nothing was, or by a version that kept none."""
    late: set[bytes] = field(default_factory=set)
    """Keys whose last record in the topic was overtaken by an earlier one: `hub.worker.late_words` says ours again."""
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
            0 if self.cases else None
        )  # a version before this one kept no place; what its cases reflect comes to nothing

    def empty(self) -> None:
        """Forget all of it, to be read anew from the start."""
        self.cases, self.read_to, self.ahead, self.place, self.late = {}, 0, False, None, set()
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
                cases.pop(key, None)
                late.discard(key)
            else:
                try:
                    known, packed = cases.get(key), pack(value)
                    if known is None or offset_of(packed) >= offset_of(known):
                        cases[key] = packed
                        late.discard(key)
                    else:
                        late.add(key)
                except (ValueError, KeyError, TypeError, OverflowError) as error:
                    raise self._unreadable(key) from error

    def _take_place(self, raw: bytes | None) -> None:
        place = read_place(raw)
        if place is None:
            return
        if self.place is None or place.next_offset >= self.place.next_offset:
            self.place = place
            self.late.discard(PLACE)
        else:
            self.late.add(PLACE)

    def keep_place(self, place: Place) -> list[Outgoing]:
        """Remember a place, and give the record that makes it last, if there is anything new in it.

        To be sent behind the states of the cases: it says that they are there.
        """
        if place == self.place:
            return []
        self.place = place
        return [self._place_record(place)]

    def _place_record(self, place: Place) -> Outgoing:
        raw = orjson.dumps({"place": place.next_offset, "sequences": place.sequences})
        return Outgoing(STATE.name, PLACE, raw, self.partition)

    def said(self, key: bytes) -> Outgoing | None:
        """The record of a case, or of the place, once more; None for a case that is not known."""
        if key == PLACE:
            return self._place_record(self.place) if self.place is not None else None
        raw = self.cases.get(key)
        return None if raw is None else Outgoing(STATE.name, key, unpack(raw), self.partition)

    def reflects(self, key: bytes) -> int:
        """The log offset that a case's state, or the place, reflects; -1 for one that is not known."""
        if key == PLACE:
            return self.place.next_offset if self.place is not None else -1
        raw = self.cases.get(key)
        return -1 if raw is None else offset_of(raw)

    def get(self, key: bytes) -> Case | None:
        """The case under a key; raises FatalError for state that cannot be read."""
        raw = self.cases.get(key)
        if raw is None:
            return None
        try:
            return from_json(unpack(raw))[0]
        except (msgspec.DecodeError, UnicodeDecodeError, cramjam.DecompressionError) as error:
            raise self._unreadable(key) from error

    def _unreadable(self, key: bytes) -> FatalError:
        return FatalError("HUB-E6020", partition=self.partition, key=key.decode(errors="replace"))

    def keep(self, key: bytes, case: Case, offset: int) -> Outgoing:
        """Remember a case, and give the record that makes it last."""
        raw = to_json(case, offset)
        self.cases[key] = raw
        self._touch(key, len(raw))
        return Outgoing(STATE.name, key, raw, self.partition)

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
    return seen


def read_place(raw: bytes | None) -> Place | None:
    """The place in a state record; None for a record that holds none."""
    try:
        told = orjson.loads(raw or b"")
        return Place(int(told["place"]), {str(outbox): int(last) for outbox, last in told["sequences"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


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


def pack(raw: bytes) -> bytes:
    """A state record in less memory, its offset apart; cheap enough to be done with each case that is restored."""
    if raw[:1] == _PACKED:
        return raw
    return _PACKED + offset_of(raw).to_bytes(8, "big") + bytes(cramjam.lz4.compress_block(raw))


def unpack(raw: bytes) -> bytes:
    """The record as it lies in the topic."""
    return bytes(cramjam.lz4.decompress_block(raw[9:])) if raw[:1] == _PACKED else raw
