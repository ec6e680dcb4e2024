"""Facts that were told again under the same id with other content. The first stands: an event is a fact and never changes.

A source whose version is too coarse (a minute, a day) tells two states of an object as one. The sender hears nothing of it, as
what it sent was taken in; so the hub's owner does. Bounded for each instance, the oldest make room.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

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

from hub.ledger.dialect import insert_new
from hub.ledger.metadata import AnyRow, Serial, metadata
from hub.ledger.outbox import outbox
from schemas.event import Event

MOST = 1000
"""Entries of one instance."""
KEPT = 16 * 1024
"""Bytes of the other content that are kept."""
_SOURCE = "/connectors/"
_MANY = 500
"""Ids that are asked for at once."""

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


def content(event: Event) -> bytes:
    """What an event says, without what the hub adds: the same news has the same content, whenever and however often it comes."""
    told = {name: value for name, value in event.data.items() if value is not None}
    return orjson.dumps({"data": told}, option=orjson.OPT_SORT_KEYS)


def digest(event: Event) -> str:
    """A short name for its content: 32 hexadecimal digits."""
    return _digest(content(event))


def look(conn: Connection, told: Sequence[tuple[Event, str]]) -> int:
    """Note which of these events, each with its instance, are recorded with other content; how many there are."""
    ours = {event.id: (event, instance) for event, instance in told if event.source.startswith(_SOURCE)}
    ids, found = list(ours), 0
    for start in range(0, len(ids), _MANY):
        rows = select(outbox.c.event_id, outbox.c.body).where(outbox.c.event_id.in_(ids[start : start + _MANY]))
        for id_, body in conn.execute(rows).all():
            event, instance = ours[id_]
            if body and changes((first := Event.from_json(body)).data, event.data):
                _note(conn, instance, first, event)
                found += 1
    return found


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


def _note(conn: Connection, instance: str, first: Event, event: Event) -> None:
    other = content(event)
    row = {
        "instance": instance,
        "event_id": event.id,
        "type": event.type,
        "subject": event.subject,
        "first": digest(first),
        "other": _digest(other),
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


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]
