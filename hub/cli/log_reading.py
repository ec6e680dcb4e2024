"""Searches `hub.events` for a person: the events that match, and how much of the log was read to find them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from hub.log.event_log import EventLog, Record, read_to_end
from hub.projector.trail import Trail, TrailPlace, by_partition
from schemas.envelope import Event
from schemas.topics import EVENTS


@dataclass(frozen=True)
class LocatedEvent:
    """A record of the log and its event; None for a record that cannot be decoded."""

    event: Event | None
    record: Record


EventFilter = Callable[[LocatedEvent], bool]
Indexed = tuple[Sequence[TrailPlace], Mapping[int, int]]
"""The places from the log's index (the trail), and by partition the offset up to which it has indexed the log."""


@dataclass
class Search:
    """The matching records, and the coverage: how many of all records were searched."""

    found: list[LocatedEvent] = field(default_factory=list)
    read: int = 0
    indexed: int = 0
    """Records that the trail covers: only the matching ones of these are read."""
    total: int = 0
    next_offsets: dict[int, int] = field(default_factory=dict)
    """Partition → the next offset to read."""

    @property
    def coverage(self) -> dict[str, int]:
        """For machines."""
        return {"read": self.read + self.indexed, "total": self.total}


def locate(record: Record) -> LocatedEvent:
    """The record with its event, if it can be decoded."""
    try:
        return LocatedEvent(Event.from_json(record.value or b""), record)
    except ValidationError:
        return LocatedEvent(None, record)


def matching(type_: str | None, case: str | None) -> EventFilter:
    """A filter by type (`crm.opportunity.*` matches every type with that prefix) and by case; None matches any."""

    def wanted(at: LocatedEvent) -> bool:
        event = at.event
        if event is None:
            return type_ is None and case is None
        below = type_ is not None and type_.endswith("*") and event.type.startswith(type_[:-1])
        return (type_ in (None, event.type) or below) and case in (None, event.case)

    return wanted


def search_latest(
    log: EventLog, wanted: EventFilter, limit: int, *, everything: bool, indexed: Indexed | None = None
) -> Search:
    """The last matching events of the log, oldest first, in the order of their append times.

    Reads the whole log when `everything`; else only the last `limit` records of each partition, for a filter that matches any
    event. With `indexed`, reads only the places that the trail names and the records that it has not indexed yet.
    """
    starts, ends = log.starts(EVENTS.name), log.ends(EVENTS.name)
    positions = dict(starts) if everything else {p: max(starts[p], end - limit) for p, end in ends.items()}
    search = Search(total=sum(ends[p] - starts[p] for p in ends), next_offsets=dict(ends))
    if indexed is not None:
        places, covered = indexed
        positions = {p: max(start, min(covered.get(p, 0), ends[p])) for p, start in positions.items()}
        search.indexed = sum(positions[p] - start for p, start in starts.items())
        _read_indexed(log, search, places, wanted)
    for batch in read_to_end(log, EVENTS.name, positions):
        search.read += len(batch)
        search.next_offsets |= {record.partition: record.offset + 1 for record in batch}
        search.found += [at for at in map(locate, batch) if wanted(at)]
        if len(search.found) > 20 * limit + 1000:
            search.found = _newest(search.found, limit)
    search.found = _newest(search.found, limit)
    return search


def _newest(found: list[LocatedEvent], limit: int) -> list[LocatedEvent]:
    ordered = sorted(found, key=lambda at: (at.record.time, at.record.partition, at.record.offset))
    return ordered[max(0, len(ordered) - limit) :]


def _read_indexed(log: EventLog, search: Search, places: Sequence[TrailPlace], wanted: EventFilter) -> None:
    """Read the records at these places, and add the matching ones to the search."""
    reader = log.places(EVENTS.name)
    try:
        for partition, offsets in by_partition(places).items():
            search.found += [at for at in map(locate, reader.at(partition, offsets).values()) if wanted(at)]
    finally:
        reader.close()


def search_latest_of(log: EventLog, trail: Trail | None, type_: str | None, case: str | None, limit: int) -> Search:
    """The last events of a type and of a case, as `search_latest`."""
    indexed = (trail.last(type_, case, limit), trail.next_offsets()) if trail is not None else None
    return search_latest(log, matching(type_, case), limit, everything=True, indexed=indexed)


def search_event(log: EventLog, event_id: str, trail: Trail | None = None) -> Search:
    """Every record of this event: more than one if the relay published it again."""
    indexed = (trail.of_id(event_id), trail.next_offsets()) if trail is not None else None
    return search_latest(
        log, lambda at: at.event is not None and at.event.id == event_id, 100, everything=True, indexed=indexed
    )


def following(log: EventLog, wanted: EventFilter, positions: Mapping[int, int]) -> Iterator[LocatedEvent]:
    """Matching events from `positions` on, endlessly; raises RetryableError when the broker becomes unavailable."""
    reader = log.reader(EVENTS.name, positions)
    try:
        while True:
            yield from filter(wanted, map(locate, reader.read(500, 0.5)))
    finally:
        reader.close()
