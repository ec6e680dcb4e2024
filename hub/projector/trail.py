"""Looking up in the trail. It gives places of what was asked for, and now and then of another event whose number is the same.

The trail's tables, in the boards' store. The hub has them, not the boards' program, since most that read them are its own.

What the trail keeps of ids and names: numbers of 48 bits, which a database holds in six bytes.

Two names may have one number: at 10⁷ events one look-up in 30 million meets another's. So what is found by a number is checked
against the event itself.
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
from hub.ledger.ledger import look_at

NAME = "trail"
VERSION = 1
metadata = MetaData()

places = Table(
    "board_trail",
    metadata,
    Column("partition", SmallInteger, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),  # when the log got it, in ms since 1970
    Column("type", Integer, nullable=False),
    Column("id", BigInteger, nullable=False),
    Column("case", BigInteger, nullable=False),
    Column("subject", BigInteger, nullable=False),
    Column("cause", BigInteger),
)
"""An event each, in no order of keys: appending is the cheapest. Names are `numbers`, but for the place."""
Index("board_trail_id", places.c.id)
Index("board_trail_case", places.c.case, places.c.subject)

words = Table(
    "board_trail_words",
    metadata,
    Column("word", BigInteger, primary_key=True, autoincrement=False),
    Column("thing", BigInteger, primary_key=True, autoincrement=False),
    Column("ref", Text, nullable=False),
    Column("case_id", Text),  # empty: the object is the case
    sqlite_with_rowid=False,
)
"""Every object in each of its cases, by its bare id. Keys are numbers: a name may be longer than an index takes."""

types = Table(
    "board_trail_types",
    metadata,
    Column("type", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Every type of event that the log has."""

TABLES = (places, words, types)


_HALF = 1 << 47
"""Numbers are signed: a half of them lies below zero."""
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_START = re.compile(r"[0-9a-f]{1,8}|[0-9a-f]{8}-([0-9a-f]{0,4}|[0-9a-f]{4}-[0-9a-f-]*)")


def of_id(id: str) -> int:
    """The number of an event's or a command's id. Of a UUID it is the first twelve digits, so that their order is the ids'."""
    if len(id) == 36 and _UUID.fullmatch(id) is not None:
        return int(id[:8] + id[9:13], 16) - _HALF
    return of_name(id)


def starting(start: str) -> tuple[int, int] | None:
    """The first and the last number of UUIDs that start so; None for what no UUID starts with."""
    if _START.fullmatch(start) is None:
        return None
    digits = start[:8] + start[9:13]
    return int(digits.ljust(12, "0"), 16) - _HALF, int(digits.ljust(12, "f"), 16) - _HALF


@functools.lru_cache(50_000)
def of_name(name: str) -> int:
    """The number of a reference, or of any other text. Most events are of a case that had some before."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=6).digest()) - _HALF


def of_word(ref: str) -> int:
    """The number of a bare id: what follows the last stroke, in any case of letters."""
    return of_name(bare(ref))


def bare(ref: str) -> str:
    """The last part of a reference, as it is looked up."""
    return ref.rpartition("/")[2].casefold()


@functools.lru_cache(10_000)
def of_type(name: str) -> int:
    """The number of an event's type: of 31 bits, as there are few."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=4).digest()) >> 1


def of_thing(ref: str, case: str) -> int:
    """The number of an object in a case, of 63 bits: nothing checks it."""
    return int.from_bytes(blake2b(f"{ref}\n{case}".encode(errors="surrogatepass"), digest_size=8).digest()) >> 1


# As a reader from outside knows them: the hub does not import its boards. A contract test holds the two together.
_owners = table("board_owners", column("projection"), column("version"))
_positions = table(
    "board_positions", column("projection"), column("partition"), column("next_offset"), column("sequences", JSON())
)

MANY = 1000
"""Objects of one bare id that are looked at."""


class TrailPlace(NamedTuple):
    """Where an event lies, and the number of its id."""

    partition: int
    offset: int
    id: int


def by_partition(places: Iterable[TrailPlace]) -> dict[int, list[int]]:
    """Partition → the offsets of these places in it."""
    found: dict[int, list[int]] = defaultdict(list)
    for place in places:
        found[place.partition].append(place.offset)
    return found


class Named(NamedTuple):
    """An object and its case."""

    ref: str
    case: str


_PLACE = (places.c.partition, places.c.offset, places.c.id)
_IN_ORDER = (places.c.partition, places.c.offset)


@dataclass(frozen=True)
class Trail:
    """The trail as one look at the boards' store sees it."""

    conn: Connection

    @classmethod
    def of(cls, conn: Connection | None) -> Trail | None:
        """None where there is none, or one of another version."""
        if conn is None or not inspect(conn).has_table(places.name):
            return None
        found = conn.execute(select(_owners.c.version).where(_owners.c.projection == NAME)).scalar_one_or_none()
        return cls(conn) if found == VERSION else None

    def sequences(self, outbox: str) -> Mapping[int, int]:
        """Partition → the last sequence of an outbox that it has taken in."""
        found = select(_positions.c.partition, _positions.c.sequences).where(_positions.c.projection == NAME)
        return {partition: int(lasts.get(outbox, 0)) for partition, lasts in self.conn.execute(found)}

    def next_offsets(self) -> Mapping[int, int]:
        """Partition → the next offset that it will take in."""
        found = select(_positions.c.partition, _positions.c.next_offset).where(_positions.c.projection == NAME)
        return {partition: offset for partition, offset in self.conn.execute(found)}

    def of_id(self, id: str) -> list[TrailPlace]:
        """Where an event lies: more than one place when it was relayed again."""
        return self._places(select(*_PLACE).where(places.c.id == of_id(id)))

    def starting(self, start: str, limit: int) -> list[TrailPlace]:
        """Events whose id starts so, in the order of their ids."""
        span = starting(start)
        if span is None:
            return []
        found = select(*_PLACE).where(places.c.id.between(*span)).order_by(places.c.id).limit(limit)
        return [TrailPlace(*row) for row in self.conn.execute(found)]

    def of_case(self, case: str, subject: str | None = None) -> list[TrailPlace]:
        """The events of a case, all or of one object, in the order in which the log has them."""
        of_subject = () if subject is None else (places.c.subject == of_name(subject),)
        return self._places(select(*_PLACE).where(places.c.case == of_name(case), *of_subject))

    def following(self, id: str, case: str) -> list[TrailPlace]:
        """The events of a case that this event or command has caused."""
        return self._places(select(*_PLACE).where(places.c.case == of_name(case), places.c.cause == of_id(id)))

    def last(self, type_: str | None, case: str | None, limit: int) -> list[TrailPlace]:
        """The last that the log got of a type (`crm.*` means all below) and of a case, the last first."""
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

    def named(self, name: str) -> list[Named]:
        """The objects that end in this: `P-77` for `project/pm/P-77`, whatever the case of letters; sorted."""
        end = f"/{name.casefold()}"
        found = select(words.c.ref, words.c.case_id).where(words.c.word == of_word(name)).limit(MANY)
        return sorted(each for each in self._named(found) if each.ref.casefold().endswith(end))

    def cases_of(self, ref: str) -> list[str]:
        """The cases that tell of an object; sorted."""
        found = select(words.c.ref, words.c.case_id).where(words.c.word == of_word(ref), words.c.ref == ref)
        return sorted(each.case for each in self._named(found))

    def _named(self, query: Select[Any]) -> Iterator[Named]:
        for row in self.conn.execute(query):
            yield Named(row.ref, row.case_id or row.ref)

    def _places(self, query: Select[Any]) -> list[TrailPlace]:
        return [TrailPlace(*row) for row in self.conn.execute(query.order_by(*_IN_ORDER))]


@contextlib.contextmanager
def look_at_trail(url: str) -> Iterator[Trail | None]:
    """The trail in a store of boards; None where there is none, also where the store does not answer."""
    with contextlib.ExitStack() as stack:
        try:
            found = Trail.of(stack.enter_context(look_at(url, places.name)))
        except (HubError, DBAPIError):
            found = None
        yield found
