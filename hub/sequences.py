"""Whether a partition of `hub.events` is whole, as a reader meets it: each outbox's sequence without a gap, no offset passed over.

A repeat is nothing. A gap means that events were lost between the outbox and here, so a reader stops before it, until an event
of the same partition says that it was dealt with (`hub.partition.repaired`: what is missing was published again, or is accepted).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import orjson

from hub.errors import FatalError
from hub.event_log import EventLog, Reader, Record, Stored, read_to_end
from hub.partitioner import partition_of
from schemas.catalog import event_spec
from schemas.event import Event, derived_id, stamp
from schemas.topics import EVENTS, PARTITIONS

HALTED, REPAIRED = "hub.partition.halted", "hub.partition.repaired"
Kind = Literal["gap", "gone", "replaced"]
CODES: Mapping[Kind, str] = {"gap": "HUB-E2110", "gone": "HUB-E2111", "replaced": "HUB-E2112"}
# As the relay writes it: behind the event's own bytes.
_TAIL = re.compile(rb',"sequence":"([0-9]{1,19})","outbox":"([^"\\]{1,100})"}\Z')
_TAIL_BYTES = 160
_LAST_FEW = 50
"""Records at the end of a partition among which the last one of an outbox is looked for: a foreign hand may write there too."""


class Loss(NamedTuple):
    """Where a partition stops being whole, before the record at `offset`.

    `gap`: an outbox goes from sequence `last` to `found`. `gone`: the log no longer keeps the offsets from `last` on. `replaced`:
    offsets that were read hold other records now, or none.
    """

    kind: Kind
    partition: int
    offset: int
    outbox: str
    last: int
    found: int

    def error(self) -> FatalError:
        """The alarm."""
        return FatalError(CODES[self.kind], **self._asdict())


@dataclass(frozen=True)
class Place:
    """How far a partition was read: the next offset, and each outbox's last sequence."""

    next_offset: int = 0
    sequences: Mapping[str, int] = field(default_factory=dict)


class Followed(NamedTuple):
    """So many records `whole` follow on a place and lead to `place`; `loss` is what comes before the next."""

    whole: int
    place: Place
    loss: Loss | None = None


def numbered(raw: bytes | None) -> tuple[str, int] | None:
    """The outbox and the sequence that a record carries, also of one that is no good event otherwise; None when it has none."""
    if not raw:
        return None
    found = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if found is not None:
        return found[2].decode(errors="replace"), int(found[1])
    return _looked_up(raw) if b'"sequence"' in raw else None


def _looked_up(raw: bytes) -> tuple[str, int] | None:
    """As `numbered`, for one that somebody else has written."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(told, dict):
        return None
    outbox, sequence = told.get("outbox"), told.get("sequence")
    if isinstance(outbox, str) and isinstance(sequence, str) and re.fullmatch(r"[0-9]{1,19}", sequence):
        return outbox, int(sequence)
    return None


def follow(place: Place, records: Sequence[Stored], settled: Container[int] = ()) -> Followed:
    """Go through records of one partition, up to the first loss. One at an offset that is `settled` is none."""
    sequences, next_offset = dict(place.sequences), place.next_offset
    latest, tail, due = "", b"", 0
    for count, record in enumerate(records):
        raw, offset = record.value, record.offset
        # As nearly every record: the next one of the outbox that the one before came from, whatever else may stand in it.
        if offset == next_offset and due and raw and raw.endswith(b',"sequence":"%d%b' % (due, tail)):
            sequences[latest] = due
            due, next_offset = due + 1, offset + 1
            continue
        told = numbered(raw)
        if told is not None:
            outbox, sequence = told
            last = sequences.get(outbox, 0)
            kind = _contradiction(sequence, last, offset < next_offset, offset in settled)
            if kind is not None:
                loss = Loss(kind, record.partition, offset, outbox, last, sequence)
                return Followed(count, Place(next_offset, sequences), loss)
            sequences[outbox] = max(last, sequence)
            latest, tail, due = outbox, b'","outbox":%b}' % orjson.dumps(outbox), sequences[outbox] + 1
        next_offset = max(next_offset, offset + 1)
    return Followed(len(records), Place(next_offset, sequences))


def _contradiction(sequence: int, last: int, again: bool, settled: bool) -> Kind | None:
    if sequence <= last:
        return None
    if again:
        return "replaced"  # what was read before cannot hold what had not come yet
    return "gap" if sequence > last + 1 and not settled else None


def passed_over(partition: int, place: Place, start: int, end: int, settled: Container[int] = ()) -> Loss | None:
    """What a partition that now keeps the offsets from `start` to before `end` lacks of what is to be read, or was."""
    if end < place.next_offset:
        return Loss("replaced", partition, end, "", place.next_offset, end)
    if start > place.next_offset and start not in settled:
        return Loss("gone", partition, start, "", place.next_offset, start)
    return None


def own_bytes(raw: bytes) -> bytes:
    """The event as the outbox had it, before the relay numbered it."""
    return _TAIL.sub(b"}", raw)


def tails(log: EventLog, outbox: str) -> dict[int, int]:
    """Partition → the last sequence of this outbox that lies in the log. Reads a few records of each partition."""
    found: dict[int, int] = {}
    for record, told in _last_few(log):
        if told[0] == outbox:
            found[record.partition] = max(told[1], found.get(record.partition, 0))
    return found


def latest_outbox(log: EventLog) -> str | None:
    """The outbox that wrote to the log last; None when none has. Reads a few records of each partition."""
    latest = max(_last_few(log), key=lambda each: (each[0].time, each[0].offset), default=None)
    return latest[1][0] if latest else None


def _last_few(log: EventLog) -> Iterator[tuple[Record, tuple[str, int]]]:
    """The numbered ones among the last records of each partition."""
    ends, starts = log.ends(EVENTS.name), log.starts(EVENTS.name)
    positions = {partition: max(starts[partition], end - _LAST_FEW) for partition, end in ends.items()}
    for batch in read_to_end(log, EVENTS.name, positions):
        for record in batch:
            told = numbered(record.value)
            if told is not None:
                yield record, told


def since(log: EventLog, outbox: str, lasts: Mapping[int, int]) -> Iterator[list[Record]]:
    """The records of this outbox behind the sequences `lasts` (partition → sequence), in batches, in their order."""
    positions = {partition: _position(log, outbox, partition, last) for partition, last in lasts.items()}
    for batch in read_to_end(log, EVENTS.name, positions, limit=500):
        told = [(record, numbered(record.value)) for record in batch]
        found = [record for record, own in told if own and own[0] == outbox and own[1] > lasts[record.partition]]
        if found:
            yield found


def _position(log: EventLog, outbox: str, partition: int, last: int) -> int:
    """An offset at or before the first record of this outbox behind a sequence: steps back, each twice as far."""
    start, position, step = log.starts(EVENTS.name)[partition], log.ends(EVENTS.name)[partition], 1000
    while position > start and last:
        end, position, step = position, max(start, position - step), 2 * step
        reader = log.reader(EVENTS.name, {partition: position})
        try:
            first = _first(reader, outbox, end)
        finally:
            reader.close()
        if first is not None and first <= last:
            return position
    return start


def _first(reader: Reader, outbox: str, end: int) -> int | None:
    """The first sequence of this outbox before an offset."""
    while batch := reader.read(500, 1.0):
        for record in batch:
            told = numbered(record.value)
            if told is not None and told[0] == outbox:
                return told[1]
        if batch[-1].offset + 1 >= end:
            break
    return None


def history(log: EventLog, partition: int, end: int) -> tuple[Place, bool]:
    """The place that reading a partition from its start to before `end` leads to, and whether any record there has a key.

    For a reader that kept no place yet: what was missing there, it has passed already.
    """
    place, keyed = Place(), False
    for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]}):
        records = [record for record in batch if record.offset < end]
        sequences = dict(place.sequences)
        for record in records:
            keyed = keyed or record.key is not None
            told = numbered(record.value)
            if told is not None:
                sequences[told[0]] = max(told[1], sequences.get(told[0], 0))
        place = Place(end, sequences)
        if len(records) < len(batch):
            break
    return place, keyed


@dataclass
class Settled:
    """The offsets of one partition before which what is missing was dealt with; `look` reads on in the log."""

    log: EventLog
    partition: int
    position: int
    offsets: set[int] = field(default_factory=set)

    def look(self) -> set[int]:
        """Read what has come since the last look. Blocks; raises RetryableError while the log is away."""
        for batch in read_to_end(self.log, EVENTS.name, {self.partition: self.position}):
            self.offsets.update(settled_by(batch))
            self.position = batch[-1].offset + 1
        return self.offsets


def settled_by(records: Iterable[Stored]) -> set[int]:
    """The offsets that these records of one partition declare to be dealt with."""
    found = set()
    for record in records:
        told = told_repaired(record)
        if told is not None and isinstance(told.get("offset"), int):
            found.add(told["offset"])
    return found


def told_repaired(record: Stored) -> dict[str, Any] | None:
    """The data of a record that says that its partition was repaired."""
    if REPAIRED.encode() not in (record.value or b""):
        return None
    try:
        event = Event.from_json(record.value or b"")
    except ValueError:
        return None
    right = event.type == REPAIRED and event.data.get("partition") == record.partition
    return event.data if right else None


def halted(loss: Loss, now: datetime) -> Event:
    """The fact that the processor has stopped before a loss; told again, it is the same one."""
    data = {**loss._asdict(), "code": loss.error().code}
    return _event(HALTED, loss.partition, derived_id(HALTED, *map(str, loss)), data, now)


def repaired(loss: Loss, now: datetime, *, published: int, accepted: int, reason: str | None, by: str | None) -> Event:
    """The fact that a loss was dealt with: so many events were published again, so many are given up for `reason`."""
    data = {**loss._asdict(), "published": published, "accepted": accepted, "reason": reason, "by": by}
    return _event(REPAIRED, loss.partition, derived_id(REPAIRED, *map(str, loss)), data, now)


def _event(type_: str, partition: int, id_: str, data: dict[str, Any], now: datetime) -> Event:
    at, case = stamp(now), case_of(partition)
    return Event(
        id=id_,
        source="/hub/log",
        type=type_,
        subject=subject_of(partition),
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        data=data,
    )


def subject_of(partition: int) -> str:
    """What events about a partition are about."""
    return f"partition/hub/{partition}"


def case_of(partition: int, hashed: Callable[[bytes, int], int] = partition_of) -> str:
    """A case that lies in this very partition: who has stopped there finds the news by reading on."""
    tries = (f"{subject_of(partition)}/{n}" for n in range(100_000))
    return next(case for case in tries if hashed(case.encode(), PARTITIONS) == partition)
