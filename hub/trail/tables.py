"""The trail's tables, in the boards' store. The hub has them, not the boards' program, since most that read them are its own."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, SmallInteger, Table, Text

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
