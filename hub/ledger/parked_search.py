"""Searching parked entries: by cause, by filter, page by page. Built for a million entries: no query reads their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, select

from hub.ledger.database import AnyRow
from hub.ledger.parked import BYTES, is_open, parked

PAGE_SIZE = 1000
"""Entries of a page when iterating over all."""
LISTED = tuple(column for column in parked.c if column.name not in BYTES)


class ParkedCause(NamedTuple):
    """The fields that entries of one group share."""

    kind: str
    code: str
    rule: str | None
    place: str | None
    instance: str | None

    @property
    def name(self) -> str:
        """A short name for people: eight hexadecimal digits of a hash, the same on every machine."""
        joined = "\x1f".join("\x1e" if part is None else part for part in self)
        return hashlib.sha256(joined.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class ParkedFilter:
    """Which entries: those with all of these. `since` is a `schemas.envelope.Timestamp`; `state` None means open or settled."""

    kind: str | None = None
    code: str | None = None
    rule: str | None = None
    instance: str | None = None
    case: str | None = None
    since: str | None = None
    state: str | None = "open"
    cause: ParkedCause | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """The SQL conditions. Open entries need the literal condition `is_open`, or no partial index applies."""
        if self.state is not None:
            yield is_open if self.state == "open" else parked.c.state == self.state
        named = {"kind": self.kind, "code": self.code, "rule": self.rule, "instance": self.instance}
        named |= {"case_id": self.case} | {
            name: value for name, value in zip(ParkedCause._fields, self.cause or (), strict=False)
        }
        yield from (parked.c[name] == value for name, value in named.items() if value is not None)
        if self.cause is not None:
            yield from (parked.c[name].is_(None) for name in ParkedCause._fields if getattr(self.cause, name) is None)
        if self.since is not None:
            yield parked.c.parked_at >= self.since


@dataclass(frozen=True)
class Group:
    """The entries of one cause, counted. `example` is the number of the first that was parked."""

    cause: ParkedCause
    count: int
    oldest: str
    newest: str
    example: int


_CAUSE = tuple(parked.c[name] for name in ParkedCause._fields)


def groups(conn: Connection, criteria: ParkedFilter) -> list[Group]:
    """Entries by cause; the causes with the most entries first."""
    of_each = (func.count(), func.min(parked.c.parked_at), func.max(parked.c.parked_at), func.min(parked.c.id))
    found = conn.execute(select(*_CAUSE, *of_each).where(*criteria.conditions()).group_by(*_CAUSE)).all()
    made = [Group(ParkedCause(*row[:5]), row[5], row[6], row[7], row[8]) for row in found]
    return sorted(made, key=lambda group: (-group.count, group.example))


def by_name(conn: Connection, name: str) -> list[ParkedCause]:
    """The causes of open entries whose name begins with `name`, or whose code is `name`."""
    found = [group.cause for group in groups(conn, ParkedFilter())]
    return [cause for cause in found if cause.code == name or cause.name.startswith(name.lower())]


def count(conn: Connection, criteria: ParkedFilter) -> int:
    """The number of matching entries."""
    return int(conn.execute(select(func.count()).select_from(parked).where(*criteria.conditions())).scalar_one())


def page(conn: Connection, criteria: ParkedFilter, after: int = 0, limit: int = PAGE_SIZE) -> Sequence[AnyRow]:
    """Entries with a number above `after`, oldest first, without their bytes."""
    # The ids come from an index that covers the conditions; only then are rows fetched.
    ids = select(parked.c.id).where(*criteria.conditions(), parked.c.id > after).order_by(parked.c.id).limit(limit)
    return conn.execute(select(*LISTED).where(parked.c.id.in_(ids.scalar_subquery())).order_by(parked.c.id)).all()


def blocked_by(conn: Connection, entry: AnyRow, limit: int) -> tuple[int, Sequence[AnyRow]]:
    """Entries parked behind this one: later ones of its case, or about its object. Returns their number and the first of them."""
    same = parked.c.subject == entry.subject if entry.kind == "delivery" else parked.c.case_id == entry.case_id
    conditions = (is_open, parked.c.kind == entry.kind, same, parked.c.id > entry.id)
    number = conn.execute(select(func.count()).select_from(parked).where(*conditions)).scalar_one()
    rows = conn.execute(select(*LISTED).where(*conditions).order_by(parked.c.id).limit(limit)).all()
    return int(number), rows


def examples(conn: Connection, numbers: Sequence[int]) -> dict[int, Any]:
    """Entries by number, without their bytes."""
    return {row.id: row for row in conn.execute(select(*LISTED).where(parked.c.id.in_(numbers)))}


def open_entries_of(conn: Connection, refs: Sequence[str]) -> list[AnyRow]:
    """The open entries of these refs, in the given order, without their bytes."""
    found = list[AnyRow]()
    for first in range(0, len(refs), 500):
        some = refs[first : first + 500]
        rows = {row.ref: row for row in conn.execute(select(*LISTED).where(is_open, parked.c.ref.in_(some)))}
        found += [rows[ref] for ref in some if ref in rows]
    return found
