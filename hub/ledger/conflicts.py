"""Conflicts: a later event with the id of a recorded one and other content. The first stays valid, since an event never changes.

The cause is a source whose version is too coarse (a minute, a day): two states of an object get one id. The sender gets no error,
because its delivery was accepted, so the conflict is reported to the hub's owner. Each instance has at most `MAX_PER_INSTANCE`
entries; the oldest are deleted.
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
from schemas.envelope import CONNECTOR_SOURCE, Event

MAX_PER_INSTANCE = 1000
"""Most entries of one instance."""
MAX_BODY_BYTES = 16 * 1024
"""Bytes of the later content that are stored."""
_MANY = 500
"""Ids in one query."""
_ACCOUNTS, _PERSONS = 1, 2

conflicts = Table(
    "conflicts",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("instance", Text, nullable=False, index=True),
    Column("event_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False, index=True),
    Column("first", Text, nullable=False),  # digest of the valid content
    Column("other", Text, nullable=False),  # digest of the later content
    Column("body", LargeBinary, nullable=False),  # the later content's first bytes
    Column("times", Integer, nullable=False),
    Column("first_at", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    UniqueConstraint("event_id", "other"),
    sqlite_autoincrement=True,
)


def content(data: Mapping[str, Any]) -> bytes:
    """The canonical JSON of an event's data, without what the hub adds: a redelivered event has the same content."""
    fields = {name: value for name, value in data.items() if value is not None}
    return orjson.dumps({"data": fields}, option=orjson.OPT_SORT_KEYS)


def digest(event: Event) -> str:
    """The digest of an event's content: 32 hexadecimal digits."""
    return summary(event.data).name


class Summary(NamedTuple):
    """Digests of an event's content, stored when its row is trimmed, to recognise whether a later delivery has the same content.

    `people`: a byte with flags for accounts and persons named in the content, then a digest of the content without them; None where
    none are named.
    """

    content: bytes
    people: bytes | None

    @property
    def name(self) -> str:
        """The content's digest as 32 hexadecimal digits."""
        return self.content.hex()

    def differs(self, later: Summary) -> bool:
        """Whether `changes` of the two contents would differ. A changed person goes unnoticed beside one who got an account."""
        if self.content == later.content:
            return False
        if self.people is None or later.people is None or self.people[1:] != later.people[1:]:
            return True
        first, other = self.people[0], later.people[0]
        return not (first & _ACCOUNTS and other & _PERSONS) and not (first & _PERSONS and other & _ACCOUNTS)


def summary(data: Mapping[str, Any]) -> Summary:
    """The summary of an event's data."""
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


def detect(conn: Connection, events: Sequence[tuple[Event, str]]) -> int:
    """Record a conflict for each of these events (with its instance) that is stored with other content; returns how many."""
    from_outside = {event.id: (event, instance) for event, instance in events if is_from_outside(event.source)}
    conflicting, in_outbox = list[tuple[str, Summary]](), set[str]()
    for start in range(0, len(from_outside), _MANY):
        ids = list(from_outside)[start : start + _MANY]
        rows = conn.execute(select(outbox.c.event_id, outbox.c.body).where(outbox.c.event_id.in_(ids))).all()
        in_outbox.update(row.event_id for row in rows)
        for id_, body in rows:
            if body and changes((first := Event.from_json(body)).data, from_outside[id_][0].data):
                conflicting.append((id_, summary(first.data)))
    for id_, digests in trimmed.contents(conn, [id_ for id_ in from_outside if id_ not in in_outbox]).items():
        if Summary(*digests).differs(summary(from_outside[id_][0].data)):
            conflicting.append((id_, Summary(*digests)))
    for id_, recorded in conflicting:
        _record(conn, from_outside[id_][1], recorded, from_outside[id_][0])
    return len(conflicting)


def is_from_outside(source: str) -> bool:
    """Whether the event comes from an outside system; the hub's own events repeat unchanged."""
    return source.startswith(CONNECTOR_SOURCE)


def counts(conn: Connection) -> dict[str, int]:
    """Instance → number of entries. Empty where the table is missing: a ledger that is only read may be of an older hub."""
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
    of_instance = () if instance is None else (conflicts.c.instance == instance,)
    return conn.execute(
        select(conflicts).where(*of_instance).order_by(conflicts.c.last_at.desc(), conflicts.c.id.desc()).limit(limit)
    ).all()


def _record(conn: Connection, instance: str, first: Summary, event: Event) -> None:
    other = content(event.data)
    row = {
        "instance": instance,
        "event_id": event.id,
        "type": event.type,
        "subject": event.subject,
        "first": first.name,
        "other": _digest(other).hex(),
        "body": other[:MAX_BODY_BYTES],
        "times": 1,
        "first_at": event.recordedtime,
        "last_at": event.recordedtime,
    }
    if insert_new(conn, conflicts, row, "event_id", "other"):
        _delete_oldest(conn, instance)
        return
    same = (conflicts.c.event_id == event.id, conflicts.c.other == row["other"])
    conn.execute(change(conflicts).where(*same).values(times=conflicts.c.times + 1, last_at=event.recordedtime))


def _delete_oldest(conn: Connection, instance: str) -> None:
    of_instance = conflicts.c.instance == instance
    last = select(conflicts.c.id).where(of_instance).order_by(conflicts.c.id.desc()).offset(MAX_PER_INSTANCE).limit(1)
    oldest = conn.execute(last).scalar_one_or_none()
    if oldest is not None:
        conn.execute(delete(conflicts).where(of_instance, conflicts.c.id <= oldest))


def _same(one: Any, other: Any) -> bool:
    """Equal, or an account on one side and a person on the other: a person was assigned to the account or removed from it."""
    if one == other:
        return True
    accounts = [isinstance(value, str) and value.startswith("account/") for value in (one, other)]
    persons = [isinstance(value, str) and value.startswith("person/") for value in (one, other)]
    return any(accounts) and any(persons)


def changes(first: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that differ: the valid value, and the later one."""
    names = sorted({*first, *later})
    return {name: (first.get(name), later.get(name)) for name in names if not _same(first.get(name), later.get(name))}


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:16]
