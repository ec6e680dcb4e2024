"""Past events from wherever they are still stored: first the ledger's outbox, then, by the trail, the events that only the log has.

The outbox trims an event some time after it was published, so either store may give the same answer. `gaps` reports what cannot
be read now (no ledger, no trail, no broker, a record that is gone or is no event); nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Table, select

from hub.errors import HubError
from hub.ledger import commands, identity, outbox, trimmed
from hub.ledger.database import AnyRow
from hub.ledger.outbox import outbox as table
from hub.log.event_log import OffsetReader, Record
from hub.log.sequences import sequence_of
from hub.projector.trail import NamedObject, Trail, TrailPlace, by_partition, of_id
from schemas.envelope import Event

MAX_RECENT_ROWS = 10_000
"""Newest ledger rows searched for names that the trail has not indexed yet."""
MAX_PREFIX_MATCHES = 20
"""Events read for one prefix of an id."""


_SUBJECTS = select(table.c.subject, table.c.case_id, table.c.partition, table.c.sequence)


@dataclass(frozen=True)
class StoredEvent:
    """An event as stored in the ledger or the log, without the sequence and outbox id that the relay adds."""

    event: Event
    case: str | None
    """None while the event waits for correlation: its case is not known yet."""
    partition: int | None = None
    sequence: int | None = None
    outbox: str | None = None
    """Set for a record of the log."""
    record: Record | None = None
    """None for an event from the ledger."""


@dataclass
class Gaps:
    """The stores and records that an answer could not include."""

    no_ledger: bool = False
    ledger_error: HubError | None = None
    """Why the ledger could not be read; None also when there is no ledger."""
    no_trail: bool = False
    log_error: HubError | None = None
    """Why the log could not be read."""
    unread: dict[tuple[int, int], None] = field(default_factory=dict)
    """(partition, offset) of events that belong to the answer and cannot be read: the log is away, or no longer has them."""
    behind: bool = False
    """Whether more rows than were searched wait to be indexed by the trail."""

    def __bool__(self) -> bool:
        return bool(self.as_value())

    def error(self) -> HubError | None:
        """Why the answer may lack events that exist; None when no store failed."""
        return self.log_error or self.ledger_error

    def as_value(self) -> dict[str, Any]:
        """As JSON; empty when nothing is missing."""
        flags = {"ledger": self.no_ledger, "trail": self.no_trail, "behind": self.behind}
        lacking: dict[str, Any] = {name: True for name, is_set in flags.items() if is_set}
        if self.unread:
            lacking["unread"] = [{"partition": p, "offset": offset} for p, offset in self.unread]
            lacking["code"] = self.log_error.code if self.log_error is not None else None
        return lacking


@dataclass
class History:
    """One snapshot of ledger and trail, and a reader of the log. A store that is None is unavailable; the others still answer."""

    ledger: Connection | None
    trail: Trail | None = None
    log: OffsetReader | None = None
    gaps: Gaps = field(default_factory=Gaps)

    def __post_init__(self) -> None:
        self.gaps.no_ledger = self.ledger is None
        self.gaps.no_trail = self.trail is None and self.ledger is not None and _is_trimmed(self.ledger)

    def event(self, id: str) -> StoredEvent | None:
        """The event with this id."""
        row = outbox.find(self.ledger, id) if self.ledger is not None else None
        if row is not None:
            return _of_row(row)
        stored = self._read(self.trail.of_id(id)) if self.trail is not None else ()
        return next((each for each in stored if each.event.id == id), None)

    def starting(self, start: str) -> list[StoredEvent]:
        """Events whose id has this prefix: the first `MAX_PREFIX_MATCHES` of the ledger, and of the log."""
        ids = [row.event_id for row in ids_starting(self.ledger, table, start)] if self.ledger is not None else []
        rows = self.ledger.execute(select(table).where(table.c.event_id.in_(ids))) if self.ledger is not None else ()
        in_ledger = [_of_row(row) for row in rows]
        places = self.trail.starting(start, MAX_PREFIX_MATCHES) if self.trail is not None else []
        stored = [*in_ledger, *self._read(_missing(places, in_ledger))]
        return sorted((each for each in stored if each.event.id.startswith(start)), key=lambda each: each.event.id)

    def of_case(self, case: str) -> list[StoredEvent]:
        """The events of a case in log order, followed by those not published yet."""
        rows = outbox.of_case(self.ledger, case) if self.ledger is not None else ()
        places = self.trail.of_case(case) if self.trail is not None else ()
        return [each for each in self._together(rows, places) if each.case == case]

    def of_subject(self, ref: str, case: str | None = None) -> list[StoredEvent]:
        """The events about one entity, case by case in log order, followed by those not published yet.

        `case`: one of its cases, when the caller knows it already.
        """
        rows = outbox.of_subject(self.ledger, ref) if self.ledger is not None else ()
        cases = {*self._cases_of(ref, rows), *([case] if case else ())}
        places = [place for each in sorted(cases) for place in (self.trail.of_case(each, ref) if self.trail else ())]
        return [each for each in self._together(rows, places) if each.event.subject == ref]

    def _cases_of(self, ref: str, rows: Sequence[AnyRow]) -> list[str]:
        known = {row.case_id for row in rows if row.case_id}
        known.update(self.trail.cases_of(ref) if self.trail is not None else ())
        if ref.startswith(("command/", "request/")) and self.ledger is not None:
            command = commands.get(self.ledger, ref.rpartition("/")[2])
            known.update([command.case_id] if command is not None else ())
        return sorted(known)

    def case_of(self, ref: str) -> str | None:
        """The case of an entity that is the subject of some event."""
        rows = outbox.of_subject(self.ledger, ref) if self.ledger is not None else ()
        cases = (row.case_id for row in rows if row.case_id)
        return next(iter([*cases, *self._cases_of(ref, ())]), None)

    def named(self, name: str) -> list[NamedObject]:
        """The entities with this id in their system, each with its case; sorted."""
        found = {each.ref: each for each in reversed(self.trail.named(name))} if self.trail is not None else {}
        end = f"/{name.casefold()}"
        for row in self._unindexed():
            if row.case_id and row.subject.casefold().endswith(end):
                found.setdefault(row.subject, NamedObject(row.subject, row.case_id))
        return sorted(found.values())

    def _unindexed(self) -> Iterator[AnyRow]:
        """The newest rows of the ledger that the trail has not indexed yet."""
        if self.ledger is None:
            return
        indexed = (
            self.trail.sequences(identity.get_value(self.ledger, "outbox") or "") if self.trail is not None else {}
        )
        ends = outbox.sequence_ends(self.ledger)
        left = sum(max(0, last - indexed.get(partition, 0)) for partition, last in ends.items())
        newest = _SUBJECTS.order_by(table.c.id.desc()).limit(MAX_RECENT_ROWS)
        if left == 0:
            newest = newest.where(table.c.published_at.is_(None))
        for row in self.ledger.execute(newest):
            if row.sequence is None or row.sequence > indexed.get(row.partition, 0):
                left -= row.sequence is not None
                yield row
        self.gaps.behind = left > 0

    def _together(self, rows: Iterable[AnyRow], places: Sequence[TrailPlace]) -> list[StoredEvent]:
        """The events of the ledger and those that only the log has, each once, in the order of `places`."""
        in_ledger = [_of_row(row) for row in rows]
        order = {place.id: at for at, place in reversed(list(enumerate(places)))}
        stored = [*in_ledger, *self._read(_missing(places, in_ledger))]
        return sorted(stored, key=lambda each: order.get(of_id(each.event.id), len(places)))

    def _read(self, places: Sequence[TrailPlace]) -> list[StoredEvent]:
        """The events at these places, each once; what cannot be read is noted."""
        if not places:
            return []
        records = self._records(places)
        by_id: dict[str, StoredEvent] = {}
        for place in places:
            stored = _of_record(records.get((place.partition, place.offset)))
            if stored is None:
                self.gaps.unread[place.partition, place.offset] = None
            elif of_id(stored.event.id) == place.id:
                by_id.setdefault(stored.event.id, stored)
        return list(by_id.values())

    def _records(self, places: Sequence[TrailPlace]) -> dict[tuple[int, int], Record]:
        found: dict[tuple[int, int], Record] = {}
        for partition, offsets in by_partition(places).items():
            found |= {(partition, offset): record for offset, record in self._at(partition, offsets).items()}
        return found

    def _at(self, partition: int, offsets: Sequence[int]) -> dict[int, Record]:
        if self.log is None or self.gaps.log_error is not None:
            return {}
        try:
            return self.log.at(partition, offsets)
        except HubError as error:
            self.gaps.log_error = error
            return {}


def _is_trimmed(conn: Connection) -> bool:
    """Whether the ledger has trimmed any event: without a trail, such events cannot be found in the log."""
    return bool(trimmed.sequences(conn))


def _missing(places: Iterable[TrailPlace], stored: Iterable[StoredEvent]) -> list[TrailPlace]:
    """The places of events that are not in `stored`."""
    known = {of_id(each.event.id) for each in stored}
    return [place for place in places if place.id not in known]


def _of_row(row: AnyRow) -> StoredEvent:
    return StoredEvent(Event.from_json(row.body), row.case_id, row.partition, row.sequence)


def _of_record(record: Record | None) -> StoredEvent | None:
    if record is None:
        return None
    outbox_id, sequence = sequence_of(record.value) or (None, None)
    try:
        event = Event.from_json(record.value or b"")
    except ValidationError:
        return None
    if event.sequence is not None or event.outbox is not None:
        event = event.model_copy(update={"sequence": None, "outbox": None})
    return StoredEvent(event, event.case, record.partition, sequence, outbox_id, record)


_HEX = "0123456789abcdefg"


def ids_starting(conn: Connection, within: Table, start: str) -> Sequence[AnyRow]:
    """Id and case of the ledger's events or commands whose id has this prefix, found by the index on the id.

    A collation may order ids differently from their bytes, but every collation orders the leading hex digits alike.
    """
    digits = start[:8]
    if not digits or not set(digits) <= set(_HEX[:-1]):
        return ()
    after = digits[:-1] + _HEX[_HEX.index(digits[-1]) + 1]
    id = within.c.event_id if within is table else within.c.id
    found = select(id, within.c.case_id).where(id >= digits, id < after, id.startswith(start, autoescape=True))
    return conn.execute(found.order_by(id).limit(MAX_PREFIX_MATCHES)).all()
