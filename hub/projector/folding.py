"""How a batch of records changes a board. Pure, so that the live runner, rebuilds and tests share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

from hub.errors import FatalError
from hub.kit.projection import Projection, Row
from hub.kit.records import corrected
from hub.log.event_log import Record
from hub.log.sequences import NONE_SETTLED, note_sequence, sequence_of
from schemas.decoding import RecordedEvent
from schemas.envelope import Event

E = TypeVar("E", Event, RecordedEvent)


@dataclass(frozen=True)
class FoldPosition:
    """How far one partition is folded: next offset, last sequence per outbox, recorded time of the newest event."""

    next_offset: int = 0
    sequences: Mapping[str, int] = field(default_factory=dict)
    as_of: str = ""


@dataclass
class FoldableBatch(Generic[E]):
    """The events of a batch to fold, and the positions of the partitions after it. `loss`: the batch ends before a sequence gap."""

    places: dict[int, FoldPosition]
    found: list[tuple[Record, E]] = field(default_factory=list)
    repeats: list[tuple[Record, E]] = field(default_factory=list)
    """Duplicates: events of the log whose sequence was folded before."""
    unreadable: int = 0
    loss: FatalError | None = None


def take(
    records: Sequence[Record],
    places: Mapping[int, FoldPosition],
    board: str,
    read: Callable[[Record], E | None],
    settled: Mapping[int, Mapping[int, bool]] = MappingProxyType({}),
) -> FoldableBatch[E]:
    """Check each record against its partition's position: skip repeats, and end the batch before a sequence gap.

    `settled`: per partition, the offsets before which a gap was repaired → whether that record came from a foreign producer; a
    foreign record's sequence is ignored. A record that is no valid event advances the sequence all the same.
    """
    taken = FoldableBatch[E](dict(places))
    moving: dict[int, _Moving] = {}
    for record in records:
        place = moving.get(record.partition)
        if place is None:
            place = moving[record.partition] = _Moving(taken.places[record.partition])
        if record.offset < place.next_offset:
            continue
        event = read(record)
        outbox, sequence = sequence_of(record.value) or ("", 0)
        last = place.sequences.get(outbox, 0)
        foreign = settled.get(record.partition, NONE_SETTLED).get(record.offset)
        if sequence > last + 1 and foreign is None:
            taken.loss = _loss(board, record, outbox, last, sequence)
            break
        if event is None:
            taken.unreadable += 1
        elif not sequence or sequence > last:
            taken.found.append((record, event))
            place.as_of = max(place.as_of, event.recordedtime)
        else:
            taken.repeats.append((record, event))
        if sequence > last and not foreign:
            note_sequence(place.sequences, outbox, sequence)
        place.next_offset = record.offset + 1
    taken.places.update({partition: place.reached() for partition, place in moving.items()})
    return taken


class _Moving:
    """The mutable position of a partition while a batch is read."""

    __slots__ = ("as_of", "next_offset", "sequences")

    def __init__(self, place: FoldPosition) -> None:
        self.next_offset, self.sequences, self.as_of = place.next_offset, dict(place.sequences), place.as_of

    def reached(self) -> FoldPosition:
        return FoldPosition(self.next_offset, self.sequences, self.as_of)


def _loss(board: str, record: Record, outbox: str, last: int, found: int) -> FatalError:
    return FatalError(
        "HUB-E5101",
        board=board,
        partition=record.partition,
        offset=record.offset,
        outbox=outbox,
        last=last,
        found=found,
    )


def to_fold(found: Sequence[tuple[Record, Event]]) -> list[Event]:
    """The events that boards fold: each event found and, after a correction, the corrected event that it carries."""
    events: list[Event] = []
    for _, event in found:
        correction = corrected(event)
        events += [event] if correction is None else [event, correction]
    return events


@dataclass(frozen=True)
class RowChange:
    """A row before and after a batch; None: no row."""

    before: Row | None
    after: Row | None


def keys_of(projection: Projection, events: Sequence[Event]) -> set[str]:
    """The keys of the rows that a batch affects."""
    return {key for event in events for key in projection.keys(event)}


def fold(projection: Projection, events: Sequence[Event], rows: Mapping[str, Row]) -> dict[str, RowChange]:
    """Fold events over the rows that they affect; returns only rows that changed.

    Raises FatalError when the fold itself fails: skipping the event would leave a board that is no fold of the log.
    """
    current: dict[str, Row | None] = dict(rows)
    for event in events:
        keys = projection.keys(event)
        if not keys:
            continue
        try:
            current.update(projection.fold({key: current.get(key) for key in keys}, event))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise FatalError("HUB-E5102", board=projection.name, event=event.id, reason=reason) from error
    return {key: RowChange(rows.get(key), after) for key, after in current.items() if rows.get(key) != after}
