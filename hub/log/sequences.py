"""Gap detection for a reader of `hub.events`: each outbox's sequence must be contiguous per partition, and no offset skipped.

Repeats are ignored. A gap means that events were lost between the outbox and the log, so a reader halts before it until an event
of the same partition settles it (`hub.partition.repaired`: the missing events were republished, or their loss is accepted).
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

import orjson

from hub.errors import FatalError
from hub.log.event_log import EventLog, StoredRecord, read_to_end
from schemas.topics import EVENTS

SettledOffsets = dict[int, bool]
"""Offsets before which a loss is settled; True where the record itself is foreign, so that its sequence is ignored."""
NONE_SETTLED: Mapping[int, bool] = MappingProxyType({})
LossKind = Literal["gap", "gone", "replaced"]
LOSS_CODES: Mapping[LossKind, str] = {"gap": "HUB-E2110", "gone": "HUB-E2111", "replaced": "HUB-E2112"}
# The relay appends this to the event's own bytes.
_TAIL = re.compile(rb',"sequence":"([0-9]{1,19})","outbox":"([^"\\]{1,100})"}\Z')
_TAIL_BYTES = 160
MAX_OUTBOXES = 64
"""How many outboxes a position tracks. A hub has one, plus one for each new ledger that was started on the same log."""
MAX_SEQUENCE = 2**63 - 1
"""The largest sequence that fits a ledger's integer column."""


class Loss(NamedTuple):
    """Where events are missing from a partition: just before the record at `offset`.

    `gap`: an outbox jumps from sequence `last` to `found`. `gone`: the log no longer retains the offsets from `last` on.
    `replaced`: offsets that were read before hold other records now, or none.
    """

    kind: LossKind
    partition: int
    offset: int
    outbox: str
    last: int
    found: int

    def error(self) -> FatalError:
        """The error that halts the reader."""
        return FatalError(LOSS_CODES[self.kind], **self._asdict())


@dataclass(frozen=True)
class ReadPosition:
    """How far a reader is in a partition: the next offset, and each outbox's last sequence."""

    next_offset: int = 0
    sequences: Mapping[str, int] = field(default_factory=dict)


class FollowResult(NamedTuple):
    """The first `whole` records follow without a gap and lead to `place`; `loss` comes before the next record."""

    whole: int
    place: ReadPosition
    loss: Loss | None = None


def sequence_of(raw: bytes | None) -> tuple[str, int] | None:
    """The outbox and the sequence of a record, even of one that is otherwise no valid event; None when it has none."""
    if not raw:
        return None
    tail = _TAIL.search(raw, max(0, len(raw) - _TAIL_BYTES))
    if tail is not None:
        return _checked_sequence(tail[2].decode(errors="replace"), int(tail[1]))
    return _parsed_sequence(raw) if b'"sequence"' in raw else None


def _parsed_sequence(raw: bytes) -> tuple[str, int] | None:
    """As `sequence_of`, for a record that the relay did not write: parses the whole JSON."""
    try:
        event = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(event, dict):
        return None
    outbox, sequence = event.get("outbox"), event.get("sequence")
    if isinstance(outbox, str) and isinstance(sequence, str) and re.fullmatch(r"[0-9]{1,19}", sequence):
        return _checked_sequence(outbox, int(sequence))
    return None


def _checked_sequence(outbox: str, sequence: int) -> tuple[str, int] | None:
    """None for a number that no ledger can assign."""
    return (outbox, sequence) if sequence <= MAX_SEQUENCE else None


def follow(
    place: ReadPosition, records: Sequence[StoredRecord], settled: Mapping[int, bool] = NONE_SETTLED
) -> FollowResult:
    """Check records of one partition up to the first loss. A gap at an offset in `settled` does not count."""
    sequences, next_offset = dict(place.sequences), place.next_offset
    latest, tail, due = "", b"", 0
    for count, record in enumerate(records):
        raw, offset = record.value, record.offset
        # Fast path, nearly every record: the next sequence of the previous record's outbox, checked without parsing.
        if offset == next_offset and due and raw and raw.endswith(b',"sequence":"%d%b' % (due, tail)):
            sequences[latest] = due
            due, next_offset = due + 1, offset + 1
            continue
        numbered = sequence_of(raw)
        if numbered is not None:
            outbox, sequence = numbered
            last = sequences.get(outbox, 0)
            kind = _contradiction(sequence, last, offset < next_offset, offset in settled)
            if kind is not None:
                loss = Loss(kind, record.partition, offset, outbox, last, sequence)
                return FollowResult(count, ReadPosition(next_offset, sequences), loss)
            if settled.get(offset):
                next_offset = offset + 1
                continue
            note_sequence(sequences, outbox, sequence)
            latest, tail, due = outbox, b'","outbox":%b}' % orjson.dumps(outbox), sequences[outbox] + 1
        next_offset = max(next_offset, offset + 1)
    return FollowResult(len(records), ReadPosition(next_offset, sequences))


def note_sequence(sequences: dict[str, int], outbox: str, sequence: int) -> None:
    """Record an outbox's last sequence. Above MAX_OUTBOXES, evict the outbox with the lowest sequence, of equals the newest.

    A producer that uses a new outbox name each time evicts only its own names, never an outbox that has written more.
    """
    if outbox not in sequences and len(sequences) >= MAX_OUTBOXES:
        del sequences[min(reversed(sequences), key=sequences.__getitem__)]
    sequences[outbox] = max(sequence, sequences.get(outbox, 0))


def _contradiction(sequence: int, last: int, is_reread: bool, settled: bool) -> LossKind | None:
    if sequence <= last:
        return None
    if is_reread:
        return "replaced"  # an offset that was read already cannot hold a sequence that had not arrived yet
    return "gap" if sequence > last + 1 and not settled else None


def skipped_offsets(
    partition: int, place: ReadPosition, start: int, end: int, settled: Container[int] = ()
) -> Loss | None:
    """The loss in a partition that now holds the offsets from `start` to before `end`, for a reader at `place`; None for none."""
    if end < place.next_offset:
        return Loss("replaced", partition, end, "", place.next_offset, end)
    if start > place.next_offset and start not in settled:
        return Loss("gone", partition, start, "", place.next_offset, start)
    return None


def with_sequence(body: bytes, sequence: int, outbox: str) -> bytes:
    """An outbox event in its log form, with outbox and sequence. The body is the hub's own JSON object: its last byte is `}`."""
    return b'%s,"sequence":"%d","outbox":%s}' % (body[:-1], sequence, orjson.dumps(outbox))


def without_sequence(raw: bytes) -> bytes:
    """The event as it is in the outbox, before the relay added outbox and sequence."""
    return _TAIL.sub(b"}", raw)


def position_before(log: EventLog, partition: int, end: int) -> tuple[ReadPosition, bool]:
    """The position after reading a partition from its start to before `end`, and whether any record there has a key.

    For a reader that has stored no position yet: it is past any gaps before `end` already, so they do not count.
    """
    place, keyed = ReadPosition(), False
    for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]}):
        records = [record for record in batch if record.offset < end]
        sequences = dict(place.sequences)
        for record in records:
            keyed = keyed or record.key is not None
            numbered = sequence_of(record.value)
            if numbered is not None:
                note_sequence(sequences, *numbered)
        place = ReadPosition(end, sequences)
        if len(records) < len(batch):
            break
    return place, keyed
