"""What happened, from wherever it still is: first the ledger's outbox, then what only the log has, by the trail.

The outbox lets go of an event some time after the log has it, so the same answer may come from either. What cannot be read now
(no ledger, no trail, no broker, a record that is gone or is no event) is told in `gaps` and not guessed.
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
from hub.log.event_log import PlaceReader, Record
from hub.log.sequences import numbered
from hub.projector.trail import Named, Trail, TrailPlace, by_partition, of_id
from schemas.envelope import Event

NEWEST = 10_000
"""Rows of the ledger that are looked through for names that the trail has not taken in yet."""
MANY = 20
"""Events of one start of an id that are read."""


_SUBJECTS = select(table.c.subject, table.c.case_id, table.c.partition, table.c.sequence)


@dataclass(frozen=True)
class StoredEvent:
    """An event as the ledger or the log keeps it: as the outbox had it, without the relay's number."""

    event: Event
    case: str | None
    """None: held, its case is not known yet."""
    partition: int | None = None
    sequence: int | None = None
    outbox: str | None = None
    """Of a record of the log."""
    record: Record | None = None
    """None: from the ledger."""


@dataclass
class Gaps:
    """What an answer lacks."""

    no_ledger: bool = False
    ledger: HubError | None = None
    """Why the ledger could not be read; None also where there is none."""
    no_trail: bool = False
    away: HubError | None = None
    """Why the log could not be read."""
    unread: dict[tuple[int, int], None] = field(default_factory=dict)
    """Places whose events are part of the answer, and could not be read: the log is away, or has them no more."""
    behind: bool = False
    """Whether more rows than were looked through wait to be taken in by the trail."""

    def __bool__(self) -> bool:
        return bool(self.as_value())

    def error(self) -> HubError | None:
        """Why something may be missing that is there, if it may."""
        return self.away or self.ledger

    def as_value(self) -> dict[str, Any]:
        """For machines; empty where nothing is missing."""
        told = {"ledger": self.no_ledger, "trail": self.no_trail, "behind": self.behind}
        lacking: dict[str, Any] = {name: True for name, lacks in told.items() if lacks}
        if self.unread:
            lacking["unread"] = [{"partition": p, "offset": offset} for p, offset in self.unread]
            lacking["code"] = self.away.code if self.away is not None else None
        return lacking


@dataclass
class History:
    """One look at ledger and trail, and a reader of the log. What is None is away, and the rest answers."""

    ledger: Connection | None
    trail: Trail | None = None
    log: PlaceReader | None = None
    gaps: Gaps = field(default_factory=Gaps)

    def __post_init__(self) -> None:
        self.gaps.no_ledger = self.ledger is None
        self.gaps.no_trail = self.trail is None and self.ledger is not None and _is_trimmed(self.ledger)

    def event(self, id: str) -> StoredEvent | None:
        """One event."""
        row = outbox.find(self.ledger, id) if self.ledger is not None else None
        if row is not None:
            return _of_row(row)
        found = self._read(self.trail.of_id(id)) if self.trail is not None else ()
        return next((each for each in found if each.event.id == id), None)

    def starting(self, start: str) -> list[StoredEvent]:
        """Events whose id starts so; of each of ledger and log the first few."""
        ids = [row.event_id for row in ids_starting(self.ledger, table, start)] if self.ledger is not None else []
        rows = self.ledger.execute(select(table).where(table.c.event_id.in_(ids))) if self.ledger is not None else ()
        kept = [_of_row(row) for row in rows]
        places = self.trail.starting(start, MANY) if self.trail is not None else []
        found = [*kept, *self._read(_missing(places, kept))]
        return sorted((each for each in found if each.event.id.startswith(start)), key=lambda each: each.event.id)

    def of_case(self, case: str) -> list[StoredEvent]:
        """The events of a case, in the order of the log; behind them what is not there yet."""
        rows = outbox.of_case(self.ledger, case) if self.ledger is not None else ()
        places = self.trail.of_case(case) if self.trail is not None else ()
        return [each for each in self._together(rows, places) if each.case == case]

    def of_subject(self, ref: str, case: str | None = None) -> list[StoredEvent]:
        """The events about one object, case by case, each in the order of the log; behind them what is not there yet.

        `case`: one of its cases, where that is known already.
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
        """The case of an object that some event is about."""
        rows = outbox.of_subject(self.ledger, ref) if self.ledger is not None else ()
        cases = (row.case_id for row in rows if row.case_id)
        return next(iter([*cases, *self._cases_of(ref, ())]), None)

    def named(self, name: str) -> list[Named]:
        """The objects whose id over there is this, each with its case; sorted."""
        found = {each.ref: each for each in reversed(self.trail.named(name))} if self.trail is not None else {}
        end = f"/{name.casefold()}"
        for row in self._untaken():
            if row.case_id and row.subject.casefold().endswith(end):
                found.setdefault(row.subject, Named(row.subject, row.case_id))
        return sorted(found.values())

    def _untaken(self) -> Iterator[AnyRow]:
        """The newest rows of the ledger, as far as the trail has not taken them in."""
        if self.ledger is None:
            return
        taken = self.trail.sequences(identity.known(self.ledger, "outbox") or "") if self.trail is not None else {}
        given = outbox.sequence_ends(self.ledger)
        left = sum(max(0, last - taken.get(partition, 0)) for partition, last in given.items())
        newest = _SUBJECTS.order_by(table.c.id.desc()).limit(NEWEST)
        if left == 0:
            newest = newest.where(table.c.published_at.is_(None))
        for row in self.ledger.execute(newest):
            if row.sequence is None or row.sequence > taken.get(row.partition, 0):
                left -= row.sequence is not None
                yield row
        self.gaps.behind = left > 0

    def _together(self, rows: Iterable[AnyRow], places: Sequence[TrailPlace]) -> list[StoredEvent]:
        """What the ledger has, and what only the log has; in the order of these places, each event once."""
        kept = [_of_row(row) for row in rows]
        order = {place.id: at for at, place in reversed(list(enumerate(places)))}
        found = [*kept, *self._read(_missing(places, kept))]
        return sorted(found, key=lambda each: order.get(of_id(each.event.id), len(places)))

    def _read(self, places: Sequence[TrailPlace]) -> list[StoredEvent]:
        """The events at these places, each once; what cannot be read is noted."""
        if not places:
            return []
        records = self._records(places)
        found: dict[str, StoredEvent] = {}
        for place in places:
            kept = _of_record(records.get((place.partition, place.offset)))
            if kept is None:
                self.gaps.unread[place.partition, place.offset] = None
            elif of_id(kept.event.id) == place.id:
                found.setdefault(kept.event.id, kept)
        return list(found.values())

    def _records(self, places: Sequence[TrailPlace]) -> dict[tuple[int, int], Record]:
        found: dict[tuple[int, int], Record] = {}
        for partition, offsets in by_partition(places).items():
            found |= {(partition, offset): record for offset, record in self._at(partition, offsets).items()}
        return found

    def _at(self, partition: int, offsets: Sequence[int]) -> dict[int, Record]:
        if self.log is None or self.gaps.away is not None:
            return {}
        try:
            return self.log.at(partition, offsets)
        except HubError as error:
            self.gaps.away = error
            return {}


def _is_trimmed(conn: Connection) -> bool:
    """Whether the ledger has let go of anything that the log has: without a trail that is not found."""
    return bool(trimmed.sequences(conn))


def _missing(places: Iterable[TrailPlace], kept: Iterable[StoredEvent]) -> list[TrailPlace]:
    """The places of what is not kept."""
    known = {of_id(each.event.id) for each in kept}
    return [place for place in places if place.id not in known]


def _of_row(row: AnyRow) -> StoredEvent:
    return StoredEvent(Event.from_json(row.body), row.case_id, row.partition, row.sequence)


def _of_record(record: Record | None) -> StoredEvent | None:
    if record is None:
        return None
    outbox_id, sequence = numbered(record.value) or (None, None)
    try:
        event = Event.from_json(record.value or b"")
    except ValidationError:
        return None
    if event.sequence is not None or event.outbox is not None:
        event = event.model_copy(update={"sequence": None, "outbox": None})
    return StoredEvent(event, event.case, record.partition, sequence, outbox_id, record)


_HEX = "0123456789abcdefg"


def ids_starting(conn: Connection, within: Table, start: str) -> Sequence[AnyRow]:
    """Id and case of the ledger's events or commands whose id starts so, by its index.

    A database may order ids by other rules than their bytes, but their first digits are ordered alike by all.
    """
    digits = start[:8]
    if not digits or not set(digits) <= set(_HEX[:-1]):
        return ()
    after = digits[:-1] + _HEX[_HEX.index(digits[-1]) + 1]
    id = within.c.event_id if within is table else within.c.id
    found = select(id, within.c.case_id).where(id >= digits, id < after, id.startswith(start, autoescape=True))
    return conn.execute(found.order_by(id).limit(MANY)).all()
