"""Reading `hub.events` for people: what was asked for, and how much of the log was looked at to find it.

What an answer about the past lacks, for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hub.cli.terminal import text, warn
from hub.errors import RejectedError
from hub.log.event_log import EventLog, Record, read_to_end
from hub.projector.trail import Trail, TrailPlace, by_partition
from schemas.envelope import Event
from schemas.topics import EVENTS

if TYPE_CHECKING:
    from hub.replay.history import Gaps

NAMED = 5
"""Places that are named."""


def not_found(ref: str, gaps: Gaps) -> RejectedError:
    """The error for a name that nothing was found by. What could not be read is said before."""
    warn(*gap_lines(gaps))
    return RejectedError("HUB-E6216" if gaps else "HUB-E6206", ref=ref)


def gap_lines(gaps: Gaps) -> Iterator[str]:
    """Plain words for what could not be read; nothing where the answer is whole."""
    if gaps.no_ledger:
        yield text(
            "（没有台账可读：命令和它们的结果不在其中，事件来自日志）",
            "(no ledger could be read: commands and their results are missing, events are from the log)",
        )
    if gaps.no_trail:
        yield text(
            "（没有日志的索引：台账已放掉的事件不在其中 → hub up，或 hub rebuild trail）",
            "(no index of the log: events that the ledger has let go of are missing → hub up, or hub rebuild trail)",
        )
    if gaps.unread:
        places = ", ".join(f"{partition}:{offset}" for partition, offset in [*gaps.unread][:NAMED])
        more = "…" if len(gaps.unread) > NAMED else ""
        why = gaps.away.message() if gaps.away is not None else text("那里没有事件了", "no event lies there any more")
        said = text("（日志里的 {} 条事件没能读到：{}；{}{}）", "({} events of the log could not be read: {}; {}{})")
        yield said.format(len(gaps.unread), why, places, more)
    if gaps.behind:
        yield text(
            "（日志的索引还在追赶：只按编号找了最近的一部分）",
            "(the index of the log is catching up: bare ids were looked for among the newest only)",
        )


@dataclass(frozen=True)
class LocatedEvent:
    """An event and where it lies; None for a record that holds none."""

    event: Event | None
    record: Record


Wanted = Callable[[LocatedEvent], bool]
Indexed = tuple[Sequence[TrailPlace], Mapping[int, int]]
"""The places that a trail names, and the offsets up to which it answers, by partition."""


@dataclass
class Search:
    """What was found, and its coverage: so many of so many records were looked through."""

    found: list[LocatedEvent] = field(default_factory=list)
    read: int = 0
    indexed: int = 0
    """For which the trail answered: of these only what was found is read."""
    total: int = 0
    goes_on: dict[int, int] = field(default_factory=dict)
    """Partition → the next offset to read."""

    @property
    def coverage(self) -> dict[str, int]:
        """For machines."""
        return {"read": self.read + self.indexed, "total": self.total}


def lying(record: Record) -> LocatedEvent:
    """A record, read if it can be."""
    try:
        return LocatedEvent(Event.from_json(record.value or b""), record)
    except ValidationError:
        return LocatedEvent(None, record)


def matching(type_: str | None, case: str | None) -> Wanted:
    """By type (`crm.opportunity.*` means all below) and by case."""

    def wanted(at: LocatedEvent) -> bool:
        event = at.event
        if event is None:
            return type_ is None and case is None
        below = type_ is not None and type_.endswith("*") and event.type.startswith(type_[:-1])
        return (type_ in (None, event.type) or below) and case in (None, event.case)

    return wanted


def last(log: EventLog, wanted: Wanted, limit: int, *, everything: bool, indexed: Indexed | None = None) -> Search:
    """The last events of the log that are wanted, oldest first, by when they were appended.

    Reads all of it when `everything`; else no more than can hold the last `limit`, for those that want any event. With a trail
    only what that names, and what it has not taken in yet.
    """
    starts, ends = log.starts(EVENTS.name), log.ends(EVENTS.name)
    positions = dict(starts) if everything else {p: max(starts[p], end - limit) for p, end in ends.items()}
    search = Search(total=sum(ends[p] - starts[p] for p in ends), goes_on=dict(ends))
    if indexed is not None:
        places, taken = indexed
        positions = {p: max(start, min(taken.get(p, 0), ends[p])) for p, start in positions.items()}
        search.indexed = sum(positions[p] - start for p, start in starts.items())
        _read_indexed(log, search, places, wanted)
    for batch in read_to_end(log, EVENTS.name, positions):
        search.read += len(batch)
        search.goes_on |= {record.partition: record.offset + 1 for record in batch}
        search.found += [at for at in map(lying, batch) if wanted(at)]
        if len(search.found) > 20 * limit + 1000:
            search.found = _newest(search.found, limit)
    search.found = _newest(search.found, limit)
    return search


def _newest(found: list[LocatedEvent], limit: int) -> list[LocatedEvent]:
    ordered = sorted(found, key=lambda at: (at.record.time, at.record.partition, at.record.offset))
    return ordered[max(0, len(ordered) - limit) :]


def _read_indexed(log: EventLog, search: Search, places: Sequence[TrailPlace], wanted: Wanted) -> None:
    """Read the records at these places."""
    reader = log.places(EVENTS.name)
    try:
        for partition, there in by_partition(places).items():
            search.found += [at for at in map(lying, reader.at(partition, there).values()) if wanted(at)]
    finally:
        reader.close()


def last_of(log: EventLog, trail: Trail | None, type_: str | None, case: str | None, limit: int) -> Search:
    """The last events of a type and of a case, as `last`."""
    indexed = (trail.last(type_, case, limit), trail.next_offsets()) if trail is not None else None
    return last(log, matching(type_, case), limit, everything=True, indexed=indexed)


def one(log: EventLog, event_id: str, trail: Trail | None = None) -> Search:
    """Every record that holds this event: more than one when it was relayed again."""
    indexed = (trail.of_id(event_id), trail.next_offsets()) if trail is not None else None
    return last(log, lambda at: at.event is not None and at.event.id == event_id, 100, everything=True, indexed=indexed)


def following(log: EventLog, wanted: Wanted, positions: Mapping[int, int]) -> Iterator[LocatedEvent]:
    """What comes from there on, for ever; raises RetryableError when the broker goes away."""
    reader = log.reader(EVENTS.name, positions)
    try:
        while True:
            yield from filter(wanted, map(lying, reader.read(500, 0.5)))
    finally:
        reader.close()
