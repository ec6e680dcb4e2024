"""Facts that were told again under the same id with other content. The first stands: an event is a fact and never changes.

A source whose version is too coarse (a minute, a day) tells two states of an object as one. The sender hears nothing of it, as
what it sent was taken in; so the hub's owner does. Bounded for each instance, the oldest make room.
"""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    inspect,
    select,
)
from sqlalchemy import update as change

from hub.ledger import trimmed
from hub.ledger.database import AnyRow, Serial, insert_new, metadata
from hub.ledger.outbox import outbox
from schemas.envelope import OUTSIDE, Event

MOST = 1000
"""Entries of one instance."""
KEPT = 16 * 1024
"""Bytes of the other content that are kept."""
_MANY = 500
"""Ids that are asked for at once."""
_ACCOUNTS, _PERSONS = 1, 2

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("instance", Text, nullable=False, index=True),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("first", Text, nullable=False),  # digest of the content that stands
    Column("other", Text, nullable=False),  # digest of the content that was told later
    Column("body", LargeBinary, nullable=False),  # that content, its first bytes
    Column("times", Integer, nullable=False),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    UniqueConstraint("event_id", "other"),
    sqlite_autoincrement=True,
)


def content(data: Mapping[str, Any]) -> bytes:
    """What an event says, without what the hub adds: the same news has the same content, whenever and however often it comes."""
    told = {name: value for name, value in data.items() if value is not None}
    return orjson.dumps({"data": told}, option=orjson.OPT_SORT_KEYS)


def digest(event: Event) -> str:
    """A short name for its content: 32 hexadecimal digits."""
    return summary(event.data).name


class Summary(NamedTuple):
    """What is kept of the content of an event whose row is trimmed, to tell whether it is told again as it was.

    `people`: a byte that says whether accounts and persons are named in it, and a digest without them; None where none are.
    """

    content: bytes
    people: bytes | None

    @property
    def name(self) -> str:
        """A short name for the content: 32 hexadecimal digits."""
        return self.content.hex()

    def differs(self, later: Summary) -> bool:
        """As `changes` of what both are of; but of several people in it, one who changed hides behind one who got an account."""
        if self.content == later.content:
            return False
        if self.people is None or later.people is None or self.people[1:] != later.people[1:]:
            return True
        first, other = self.people[0], later.people[0]
        return not (first & _ACCOUNTS and other & _PERSONS) and not (first & _PERSONS and other & _ACCOUNTS)


def summary(data: Mapping[str, Any]) -> Summary:
    """Of what an event says."""
    kinds = {name: _kind(value) for name, value in data.items()}
    named = functools.reduce(operator.or_, kinds.values(), 0)
    if not named:
        return Summary(_digest(content(data)), None)
    without = {name: "*" if kinds[name] else value for name, value in data.items()}
    return Summary(_digest(content(data)), bytes([named]) + _digest(content(without))[:8])


def _kind(value: Any) -> int:
    if not isinstance(value, str):
        return 0
    return _ACCOUNTS if value.startswith("account/") else _PERSONS if value.startswith("person/") else 0


def look(conn: Connection, told: Sequence[tuple[Event, str]]) -> int:
    """Note which of these events, each with its instance, are recorded with other content; how many there are."""
    ours = {event.id: (event, instance) for event, instance in told if is_from_outside(event.source)}
    other, there = list[tuple[str, Summary]](), set[str]()
    for start in range(0, len(ours), _MANY):
        ids = list(ours)[start : start + _MANY]
        rows = conn.execute(select(outbox.c.event_id, outbox.c.body).where(outbox.c.event_id.in_(ids))).all()
        there.update(row.event_id for row in rows)
        for id_, body in rows:
            if body and changes((first := Event.from_json(body)).data, ours[id_][0].data):
                other.append((id_, summary(first.data)))
    for id_, kept in trimmed.contents(conn, [id_ for id_ in ours if id_ not in there]).items():
        if Summary(*kept).differs(summary(ours[id_][0].data)):
            other.append((id_, Summary(*kept)))
    for id_, known in other:
        _note(conn, ours[id_][1], known, ours[id_][0])
    return len(other)


def is_from_outside(source: str) -> bool:
    """Whether a system told it: the hub's own events repeat as they are."""
    return source.startswith(OUTSIDE)


def counts(conn: Connection) -> dict[str, int]:
    """Instance → its entries. A ledger that is only looked at may be of an older hub, and have none."""
    if not inspect(conn).has_table(conflicts.name):
        return {}
    found = select(conflicts.c.instance, func.count()).group_by(conflicts.c.instance)
    return {instance: number for instance, number in conn.execute(found)}


def about(conn: Connection, events: Sequence[str]) -> Sequence[AnyRow]:
    """The entries of these events, in the order they came."""
    if not events or not inspect(conn).has_table(conflicts.name):
        return ()
    return conn.execute(select(conflicts).where(conflicts.c.event_id.in_(events)).order_by(conflicts.c.id)).all()


def latest(conn: Connection, instance: str | None, limit: int) -> Sequence[AnyRow]:
    """The newest entries, of one instance or of all."""
    if not inspect(conn).has_table(conflicts.name):
        return ()
    ours = () if instance is None else (conflicts.c.instance == instance,)
    return conn.execute(
        select(conflicts).where(*ours).order_by(conflicts.c.last_at.desc(), conflicts.c.id.desc()).limit(limit)
    ).all()


def _note(conn: Connection, instance: str, first: Summary, event: Event) -> None:
    other = content(event.data)
    row = {
        "instance": instance,
        "event_id": event.id,
        "type": event.type,
        "subject": event.subject,
        "first": first.name,
        "other": _digest(other).hex(),
        "body": other[:KEPT],
        "times": 1,
        "first_at": event.recordedtime,
        "last_at": event.recordedtime,
    }
    if insert_new(conn, conflicts, row, "event_id", "other"):
        _make_room(conn, instance)
        return
    same = (conflicts.c.event_id == event.id, conflicts.c.other == row["other"])
    conn.execute(change(conflicts).where(*same).values(times=conflicts.c.times + 1, last_at=event.recordedtime))


def _make_room(conn: Connection, instance: str) -> None:
    ours = conflicts.c.instance == instance
    last = select(conflicts.c.id).where(ours).order_by(conflicts.c.id.desc()).offset(MOST).limit(1)
    oldest = conn.execute(last).scalar_one_or_none()
    if oldest is not None:
        conn.execute(delete(conflicts).where(ours, conflicts.c.id <= oldest))


def _same(one: Any, other: Any) -> bool:
    """An account that somebody has got since, or has no more, is the same account."""
    if one == other:
        return True
    accounts = [isinstance(value, str) and value.startswith("account/") for value in (one, other)]
    persons = [isinstance(value, str) and value.startswith("person/") for value in (one, other)]
    return any(accounts) and any(persons)


def changes(first: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that differ: what stands, and what was told later."""
    names = sorted({*first, *later})
    return {name: (first.get(name), later.get(name)) for name in names if not _same(first.get(name), later.get(name))}


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:16]
