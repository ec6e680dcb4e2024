"""The trail, an index of the log: its tables in the board store, and look-ups of log positions by id, case, subject or bare id.

It stores ids and names as 48-bit hashes, which a database holds in six bytes. Two names may share a hash: at 10⁷ events, one
look-up in 30 million also returns the position of another event. So callers check each result against the event itself.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    Select,
    SmallInteger,
    Table,
    Text,
    column,
    inspect,
    select,
    table,
)
from sqlalchemy.exc import DBAPIError

from hub.errors import HubError
from hub.ledger.ledger import read_snapshot

NAME = "trail"
VERSION = 1
metadata = MetaData()

places = Table(
    "board_trail",
    metadata,
    Column("partition", SmallInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # append time of the record, ms since 1970
    Column("type", Integer, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("case", BigInteger, nullable=False),
    Column("subject", BigInteger, nullable=False),
    Column("cause", BigInteger),
)
"""One row per event, without a primary key: appending is cheapest. All columns but the position and time are hashes."""
Index("board_trail_id", places.c.id)
Index("board_trail_case", places.c.case, places.c.subject)

words = Table(
    "board_trail_words",
    metadata,
    Column("word", BigInteger, primary_key=True, autoincrement=False),
    Column("thing", BigInteger, primary_key=True, autoincrement=False),
    Column("ref", Text, nullable=False),
    Column("case_id", Text),  # NULL: the object is the case
    sqlite_with_rowid=False,
)
"""Every object in each of its cases, by its bare id. Keys are hashes: a name may exceed the length limit of an index."""

types = Table(
    "board_trail_types",
    metadata,
    Column("type", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Every event type in the log."""

TABLES = (places, words, types)


_HALF = 1 << 47
"""Offset that makes the 48-bit hashes signed."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_START = re.compile(r"[0-9a-f]{1,8}|[0-9a-f]{8}-([0-9a-f]{0,4}|[0-9a-f]{4}-[0-9a-f-]*)")


def of_id(id: str) -> int:
    """The 48-bit number of an event or command id: a UUID's first twelve digits, so that numbers sort as ids do, else a hash."""
    if len(id) == 36 and _UUID.fullmatch(id) is not None:
        return int(id[:8] + id[9:13], 16) - _HALF
    return of_name(id)


def starting(start: str) -> tuple[int, int] | None:
    """The range of numbers of UUIDs with this prefix; None for a text that is no prefix of a UUID."""
    if _START.fullmatch(start) is None:
        return None
    digits = start[:8] + start[9:13]
    return int(digits.ljust(12, "0"), 16) - _HALF, int(digits.ljust(12, "f"), 16) - _HALF


@functools.lru_cache(50_000)
def of_name(name: str) -> int:
    """The 48-bit hash of a text. Cached: most events belong to a case that had events before."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=6).digest()) - _HALF


def of_word(ref: str) -> int:
    """The hash of a bare id: the part after the last slash, case-folded."""
    return of_name(bare(ref))


def bare(ref: str) -> str:
    """The last part of a reference, case-folded for look-ups."""
    return ref.rpartition("/")[2].casefold()


@functools.lru_cache(10_000)
def of_type(name: str) -> int:
    """The 31-bit hash of an event type: there are few types."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=4).digest()) >> 1


def of_thing(ref: str, case: str) -> int:
    """The 63-bit hash of an object in a case: wider, since no event is compared with it."""
    return int.from_bytes(blake2b(f"{ref}\n{case}".encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


# Declared here so that readers of the trail do not import the board store; a contract test compares the declarations.
_owners = table("board_owners", column("projection"), column("version"))
_positions = table(
    "board_positions", column("projection"), column("partition"), column("next_offset"), column("sequences", JSON())
)

MAX_NAMED = 1000
"""Maximum number of objects returned for one bare id."""


class TrailPlace(NamedTuple):
    """The position of an event, and the number of its id."""

    partition: int
    offset: int
    id: int


def by_partition(places: Iterable[TrailPlace]) -> dict[int, list[int]]:
    """Partition → the offsets of these positions."""
    found: dict[int, list[int]] = defaultdict(list)
    for place in places:
        found[place.partition].append(place.offset)
    return found


class NamedObject(NamedTuple):
    """An object and its case."""

    ref: str
    case: str


_PLACE = (places.c.partition, places.c.offset, places.c.id)
_IN_ORDER = (places.c.partition, places.c.offset)


@dataclass(frozen=True)
class Trail:
    """The trail within one read transaction of the board store."""

    conn: Connection

    @classmethod
    def of(cls, conn: Connection | None) -> Trail | None:
        """The trail of a connection; None where there is no trail, or one of another version."""
        if conn is None or not inspect(conn).has_table(places.name):
            return None
        found = conn.execute(select(_owners.c.version).where(_owners.c.projection == NAME)).scalar_one_or_none()
        return cls(conn) if found == VERSION else None

    def sequences(self, outbox: str) -> Mapping[int, int]:
        """Partition → the last sequence of an outbox that is indexed."""
        found = select(_positions.c.partition, _positions.c.sequences).where(_positions.c.projection == NAME)
        return {partition: int(last_sequences.get(outbox, 0)) for partition, last_sequences in self.conn.execute(found)}

    def next_offsets(self) -> Mapping[int, int]:
        """Partition → the next offset to index."""
        found = select(_positions.c.partition, _positions.c.next_offset).where(_positions.c.projection == NAME)
        return {partition: offset for partition, offset in self.conn.execute(found)}

    def of_id(self, id: str) -> list[TrailPlace]:
        """The positions of an event: more than one when it was relayed twice."""
        return self._places(select(*_PLACE).where(places.c.id == of_id(id)))

    def starting(self, start: str, limit: int) -> list[TrailPlace]:
        """Positions of events whose id has this prefix, ordered by id."""
        span = starting(start)
        if span is None:
            return []
        found = select(*_PLACE).where(places.c.id.between(*span)).order_by(places.c.id).limit(limit)
        return [TrailPlace(*row) for row in self.conn.execute(found)]

    def of_case(self, case: str, subject: str | None = None) -> list[TrailPlace]:
        """Positions of a case's events, all or of one subject, in log order."""
        of_subject = () if subject is None else (places.c.subject == of_name(subject),)
        return self._places(select(*_PLACE).where(places.c.case == of_name(case), *of_subject))

    def following(self, id: str, case: str) -> list[TrailPlace]:
        """Positions of the events of a case that this event or command caused, in log order."""
        return self._places(select(*_PLACE).where(places.c.case == of_name(case), places.c.cause == of_id(id)))

    def last(self, type_: str | None, case: str | None, limit: int) -> list[TrailPlace]:
        """The latest events of a type (`crm.*`: every type below) and of a case, the latest first."""
        found = select(*_PLACE)
        if type_ is not None:
            found = found.where(places.c.type.in_(self._types(type_)))
        if case is not None:
            found = found.where(places.c.case == of_name(case))
        found = found.order_by(places.c.at.desc(), places.c.partition.desc(), places.c.offset.desc()).limit(limit)
        return [TrailPlace(*row) for row in self.conn.execute(found)]

    def _types(self, wanted: str) -> list[int]:
        if not wanted.endswith("*"):
            return [of_type(wanted)]
        known = self.conn.execute(select(types.c.name, types.c.type))
        return [number for name, number in known if name.startswith(wanted[:-1])]

    def named(self, name: str) -> list[NamedObject]:
        """Objects with this bare id, ignoring case (`P-77` finds `project/pm/P-77`); sorted."""
        end = f"/{name.casefold()}"
        found = select(words.c.ref, words.c.case_id).where(words.c.word == of_word(name)).limit(MAX_NAMED)
        return sorted(each for each in self._named(found) if each.ref.casefold().endswith(end))

    def cases_of(self, ref: str) -> list[str]:
        """The cases with events of an object; sorted."""
        found = select(words.c.ref, words.c.case_id).where(words.c.word == of_word(ref), words.c.ref == ref)
        return sorted(each.case for each in self._named(found))

    def _named(self, query: Select[Any]) -> Iterator[NamedObject]:
        for row in self.conn.execute(query):
            yield NamedObject(row.ref, row.case_id or row.ref)

    def _places(self, query: Select[Any]) -> list[TrailPlace]:
        return [TrailPlace(*row) for row in self.conn.execute(query.order_by(*_IN_ORDER))]


@contextlib.contextmanager
def open_trail(url: str) -> Iterator[Trail | None]:
    """The trail in a board store; None where there is no trail, or where the store is unavailable."""
    with contextlib.ExitStack() as stack:
        try:
            found = Trail.of(stack.enter_context(read_snapshot(url, places.name)))
        except (HubError, DBAPIError):
            found = None
        yield found
