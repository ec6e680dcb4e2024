"""Whether a partition of `hub.events` is whole, as a reader meets it: each outbox's sequence without a gap, no offset passed over.

A repeat is nothing. A gap means that events were lost between the outbox and here, so a reader stops before it, until an event
of the same partition says that it was dealt with (`hub.partition.repaired`: what is missing was published again, or is accepted).
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

import orjson

from hub.errors import FatalError
from hub.log.event_log import EventLog, Stored, read_to_end
from schemas.topics import EVENTS

Dealt = dict[int, bool]
"""Offsets before which a loss was dealt with; True where the record itself is foreign, so that its number counts for nothing."""
NONE: Mapping[int, bool] = MappingProxyType({})
Kind = Literal["gap", "gone", "replaced"]
CODES: Mapping[Kind, str] = {"gap": "HUB-E2110", "gone": "HUB-E2111", "replaced": "HUB-E2112"}
# As the relay writes it: behind the event's own bytes.
_TAIL = re.compile(rb',"sequence":"([0-9]{1,19})","outbox":"([^"\\]{1,100})"}\Z')
_TAIL_BYTES = 160
MOST = 64
"""Outboxes whose sequences a place keeps. A hub has one, and another with each ledger that was begun beside its log."""
LARGEST = 2**63 - 1
"""The last sequence that a ledger's integers hold."""


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
class ReadPosition:
    """How far a partition was read: the next offset, and each outbox's last sequence."""

    next_offset: int = 0
    sequences: Mapping[str, int] = field(default_factory=dict)


class Followed(NamedTuple):
    """So many records `whole` follow on a place and lead to `place`; `loss` is what comes before the next."""

    whole: int
    place: ReadPosition
    loss: Loss | None = None


def numbered(raw: bytes | None) -> tuple[str, int] | None:
    """The outbox and the sequence that a record carries, also of one that is no good event otherwise; None when it has none."""
    if not raw:
        return None
    found = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if found is not None:
        return _given(found[2].decode(errors="replace"), int(found[1]))
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
        return _given(outbox, int(sequence))
    return None


def _given(outbox: str, sequence: int) -> tuple[str, int] | None:
    """None for a number that no ledger can give."""
    return (outbox, sequence) if sequence <= LARGEST else None


def follow(place: ReadPosition, records: Sequence[Stored], settled: Mapping[int, bool] = NONE) -> Followed:
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
                return Followed(count, ReadPosition(next_offset, sequences), loss)
            if settled.get(offset):
                next_offset = offset + 1
                continue
            note(sequences, outbox, sequence)
            latest, tail, due = outbox, b'","outbox":%b}' % orjson.dumps(outbox), sequences[outbox] + 1
        next_offset = max(next_offset, offset + 1)
    return Followed(len(records), ReadPosition(next_offset, sequences))


def note(sequences: dict[str, int], outbox: str, sequence: int) -> None:
    """Note an outbox's last sequence. Of too many outboxes the one goes that has said least, of several the newest.

    Whoever writes under a new name each time makes room for himself only; one that has said more than that is not forgotten.
    """
    if outbox not in sequences and len(sequences) >= MOST:
        del sequences[min(reversed(sequences), key=sequences.__getitem__)]
    sequences[outbox] = max(sequence, sequences.get(outbox, 0))


def _contradiction(sequence: int, last: int, again: bool, settled: bool) -> Kind | None:
    if sequence <= last:
        return None
    if again:
        return "replaced"  # what was read before cannot hold what had not come yet
    return "gap" if sequence > last + 1 and not settled else None


def passed_over(partition: int, place: ReadPosition, start: int, end: int, settled: Container[int] = ()) -> Loss | None:
    """What a partition that now keeps the offsets from `start` to before `end` lacks of what is to be read, or was."""
    if end < place.next_offset:
        return Loss("replaced", partition, end, "", place.next_offset, end)
    if start > place.next_offset and start not in settled:
        return Loss("gone", partition, start, "", place.next_offset, start)
    return None


def with_number(body: bytes, sequence: int, outbox: str) -> bytes:
    """An event of the outbox as the log has it. The body is our own JSON object, so its last byte is its closing brace."""
    return b'%s,"sequence":"%d","outbox":%s}' % (body[:-1], sequence, orjson.dumps(outbox))


def own_bytes(raw: bytes) -> bytes:
    """The event as the outbox had it, before the relay numbered it."""
    return _TAIL.sub(b"}", raw)


def history(log: EventLog, partition: int, end: int) -> tuple[ReadPosition, bool]:
    """The place that reading a partition from its start to before `end` leads to, and whether any record there has a key.

    For a reader that kept no place yet: what was missing there, it has passed already.
    """
    place, keyed = ReadPosition(), False
    for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]}):
        records = [record for record in batch if record.offset < end]
        sequences = dict(place.sequences)
        for record in records:
            keyed = keyed or record.key is not None
            told = numbered(record.value)
            if told is not None:
                note(sequences, *told)
        place = ReadPosition(end, sequences)
        if len(records) < len(batch):
            break
    return place, keyed
