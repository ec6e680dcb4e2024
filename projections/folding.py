"""What a batch of records does to a board: pure, so that the live runner, a rebuild and the tests share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from hub.errors import FatalError
from hub.event_log import Record
from hub.projection import Projection, Row
from projections.reading import read_event
from schemas.event import Event


@dataclass(frozen=True)
class Place:
    """How far one partition is folded: the next offset, each outbox's last sequence, when the newest event was recorded."""

    next_offset: int = 0
    sequences: Mapping[str, int] = field(default_factory=dict)
    as_of: str = ""


@dataclass
class Taken:
    """The events of a batch that are to be folded, and where it leaves the partitions. `loss` ends the batch before a gap."""

    places: dict[int, Place]
    events: list[Event] = field(default_factory=list)
    unreadable: int = 0
    loss: FatalError | None = None


def take(records: Sequence[Record], places: Mapping[int, Place], board: str) -> Taken:
    """Check each record against its partition's place: repeats are passed over, and a gap stops everything before it."""
    taken = Taken(dict(places))
    for record in records:
        place = taken.places[record.partition]
        if record.offset < place.next_offset:
            continue
        event = read_event(record)
        after = replace(place, next_offset=record.offset + 1)
        if event is None:
            taken.unreadable += 1
        elif event.outbox is not None and event.sequence is not None:
            last, sequence = place.sequences.get(event.outbox, 0), int(event.sequence)
            if sequence > last + 1:
                taken.loss = _loss(board, record, event, last)
                return taken
            if sequence == last + 1:
                after = _folded(taken, after, event)
                after = replace(after, sequences={**place.sequences, event.outbox: sequence})
        else:
            after = _folded(taken, after, event)
        taken.places[record.partition] = after
    return taken


def _folded(taken: Taken, place: Place, event: Event) -> Place:
    taken.events.append(event)
    return replace(place, as_of=max(place.as_of, event.recordedtime))


def _loss(board: str, record: Record, event: Event, last: int) -> FatalError:
    return FatalError(
        "HUB-E5101",
        board=board,
        partition=record.partition,
        offset=record.offset,
        outbox=event.outbox,
        last=last,
        found=event.sequence,
    )


@dataclass(frozen=True)
class Change:
    """A row before and after a batch; None: there was, or is, no row."""

    before: Row | None
    after: Row | None


def keys_of(projection: Projection, events: Sequence[Event]) -> set[str]:
    """The rows that a batch concerns."""
    return {key for event in events for key in projection.keys(event)}


def fold(projection: Projection, events: Sequence[Event], rows: Mapping[str, Row]) -> dict[str, Change]:
    """Fold events over the rows they concern; only what really changed comes back.

    Raises FatalError when the fold itself fails: passing the event over would leave a board that is no fold of the log.
    """
    now: dict[str, Row | None] = dict(rows)
    for event in events:
        keys = projection.keys(event)
        if not keys:
            continue
        try:
            now.update(projection.fold({key: now.get(key) for key in keys}, event))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise FatalError("HUB-E5102", board=projection.name, event=event.id, reason=reason) from error
    return {key: Change(rows.get(key), after) for key, after in now.items() if rows.get(key) != after}
