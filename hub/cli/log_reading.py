"""Reading `hub.events` for people: what was asked for, and how much of the log was looked at to find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from hub.event_log import EventLog, Record, read_to_end
from schemas.event import Event
from schemas.topics import EVENTS


@dataclass(frozen=True)
class Lying:
    """An event and where it lies; None for a record that holds none."""

    event: Event | None
    record: Record


Wanted = Callable[[Lying], bool]


@dataclass
class Search:
    """What was found, and its coverage: so many of so many records were read."""

    found: list[Lying] = field(default_factory=list)
    read: int = 0
    total: int = 0
    goes_on: dict[int, int] = field(default_factory=dict)
    """Partition → the next offset to read."""


def lying(record: Record) -> Lying:
    """A record, read if it can be."""
    try:
        return Lying(Event.from_json(record.value or b""), record)
    except ValidationError:
        return Lying(None, record)


def matching(type_: str | None, case: str | None) -> Wanted:
    """By type (`crm.opportunity.*` means all below) and by case."""

    def wanted(at: Lying) -> bool:
        event = at.event
        if event is None:
            return type_ is None and case is None
        below = type_ is not None and type_.endswith("*") and event.type.startswith(type_[:-1])
        return (type_ in (None, event.type) or below) and case in (None, event.case)

    return wanted


def last(log: EventLog, wanted: Wanted, limit: int, *, everything: bool) -> Search:
    """The last events of the log that are wanted, oldest first, by when they were appended.

    Reads all of it when `everything`; else no more than can hold the last `limit`, for those that want any event.
    """
    starts, ends = log.starts(EVENTS.name), log.ends(EVENTS.name)
    positions = dict(starts) if everything else {p: max(starts[p], end - limit) for p, end in ends.items()}
    search = Search(total=sum(ends[p] - starts[p] for p in ends), goes_on=dict(ends))
    for batch in read_to_end(log, EVENTS.name, positions):
        search.read += len(batch)
        search.goes_on |= {record.partition: record.offset + 1 for record in batch}
        search.found += [at for at in map(lying, batch) if wanted(at)]
        if len(search.found) > 20 * limit + 1000:
            search.found = _newest(search.found, limit)
    search.found = _newest(search.found, limit)
    return search


def _newest(found: list[Lying], limit: int) -> list[Lying]:
    ordered = sorted(found, key=lambda at: (at.record.time, at.record.partition, at.record.offset))
    return ordered[max(0, len(ordered) - limit) :]


def one(log: EventLog, event_id: str) -> Search:
    """Every record that holds this event: more than one when it was relayed again."""
    return last(log, lambda at: at.event is not None and at.event.id == event_id, 100, everything=True)


def following(log: EventLog, wanted: Wanted, positions: Mapping[int, int]) -> Iterator[Lying]:
    """What comes from there on, for ever; raises RetryableError when the broker goes away."""
    reader = log.reader(EVENTS.name, positions)
    try:
        while True:
            yield from filter(wanted, map(lying, reader.read(500, 0.5)))
    finally:
        reader.close()
