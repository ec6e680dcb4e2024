"""What a board is to the hub: a pure fold of the log and the table that keeps it. And an index of the log: where what lies in it.

Whoever runs it reads `hub.events`, folds a batch in memory, and writes the rows and the log position in one transaction. So a
table always equals the fold of the log up to its position, whatever crashes; dropping it and reading the log again gives the same.

What a page needs to know of a projection to show it: its parts, its filters, and the fields it gives away.

Room that a board's table keeps free for its rows to change in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Table

from hub.log.event_log import Record
from schemas.decoding import RecordedEvent
from schemas.envelope import Event

Row = Mapping[str, Any]
"""A row of a board's table: column → value, without its key. Values are text, numbers, booleans, None, or JSON."""


@dataclass(frozen=True)
class Projection:
    """One board.

    `keys` says which rows an event concerns, from the event alone; no keys, nothing to do. `fold` gets those rows (None: there is
    none) and gives their next state (None: delete it); it is pure, total, and the same event twice leaves the same rows, since
    the runner passes over what lies before its position but a log may hold a record twice.
    `version` rises with every change of `fold` or `table`: a table of another version is rebuilt before it is shown.
    """

    name: str
    title: Mapping[str, str]
    version: int
    table: Table
    keys: Callable[[Event], tuple[str, ...]]
    fold: Callable[[Mapping[str, Row | None], Event], Mapping[str, Row | None]]

    @property
    def tables(self) -> tuple[Table, ...]:
        """What it keeps."""
        return (self.table,)


class EventRecord(NamedTuple):
    """An event and the record that holds it."""

    record: Record
    event: RecordedEvent


Rows = Sequence[tuple[Any, ...]]
"""Rows of a table: the values of its columns, in their order; as the drivers take them."""


@dataclass(frozen=True)
class Index:
    """Rows that are only ever added: each event gives its own, made of itself and of its place in the log.

    Nothing is read back and nothing changes, so it costs little. `rows` gives for each table those of a batch; it is pure and
    total. In a table with a primary key a row that is there already stays as it is.
    `version` rises with every change of `rows` or `tables`.
    """

    name: str
    version: int
    tables: tuple[Table, ...]
    rows: Callable[[Sequence[EventRecord]], Sequence[Rows]]


AnyProjection = Projection | Index
"""What a runner can keep equal to the log."""


@dataclass(frozen=True)
class Board:
    """A projection with a page, `page.html` in its folder.

    `parts` are pieces of the page that are fetched again by themselves, in reading order.
    """

    projection: Projection
    parts: tuple[str, ...]
    part: Column[Any] | None
    """The column that says in which part a row is shown; None: the page is one part."""
    shown: ColumnElement[bool]
    """Which rows are shown at all."""
    newest: tuple[ColumnElement[Any], ...]
    """The order of rows in a part."""
    filters: tuple[str, ...]
    """Columns that the page's address may name."""
    fields: tuple[str, ...]
    """Columns of `.json` and `.csv`, beside the key."""
    order: int = 100
    """Its place in the menu: low numbers first."""
    limit: int = 50
    """Rows a part shows; the rest is a number and a link."""
    derive: Callable[[str, Row, str], Mapping[str, Any]] = lambda key, row, today: {}
    """Further fields, from the key, the row, and the day in the hub's time zone."""

    enrich: Callable[[Connection, Sequence[Mapping[str, Any]]], Mapping[str, Any]] = lambda conn, items: {}
    """What else its template shows of these rows, from other tables."""

    @property
    def name(self) -> str:
        """As it stands in the address."""
        return self.projection.name

    def parts_of(self, row: Row | None) -> frozenset[str]:
        """The parts that show a row."""
        if row is None:
            return frozenset()
        return frozenset({row[self.part.name]} if self.part is not None else self.parts)


ROOM: Mapping[str, Any] = {"postgresql_with": {"fillfactor": 70}}
"""Given to a `Table`: PostgreSQL then has a changed row beside the old one, and no index to write while its columns stay."""
