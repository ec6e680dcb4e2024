"""The projection interface: a board is a pure fold of the log, its table, and the parts, filters and fields of its page.

The projector reads `hub.events`, folds a batch in memory, and writes the rows and the log position in one transaction. So a table
always equals the fold of the log up to its position, even after a crash; dropping it and reading the log again gives the same.
An `Index` only adds rows, one or more per event, such as the offset of each event in the log.
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

    `keys` gives the rows that an event concerns, from the event alone; without keys the event is skipped. `fold` gets those rows
    (None: no such row) and returns their next state (None: delete the row). It is pure, total and idempotent: the runner skips
    records before its position, but a log may hold an event twice.
    `version` must increase with every change of `fold` or `table`: a table of another version is rebuilt before it is shown.
    """

    name: str
    title: Mapping[str, str]
    version: int
    table: Table
    keys: Callable[[Event], tuple[str, ...]]
    fold: Callable[[Mapping[str, Row | None], Event], Mapping[str, Row | None]]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Its table, as a tuple."""
        return (self.table,)


class EventRecord(NamedTuple):
    """An event and the record that holds it."""

    record: Record
    event: RecordedEvent


Rows = Sequence[tuple[Any, ...]]
"""Rows of a table: the values of its columns, in their order; as the drivers take them."""


@dataclass(frozen=True)
class Index:
    """Append-only rows, derived from each event and its log position.

    No row is read back or changed, which makes it cheap. `rows` gives the rows of a batch for each table; it is pure and total. In
    a table with a primary key an existing row stays unchanged.
    `version` must increase with every change of `rows` or `tables`.
    """

    name: str
    version: int
    tables: tuple[Table, ...]
    rows: Callable[[Sequence[EventRecord]], Sequence[Rows]]


AnyProjection = Projection | Index
"""Whatever the projector can keep up to date with the log."""


@dataclass(frozen=True)
class Board:
    """A projection with a page, `page.html` in its folder.

    `parts` are sections of the page that are refreshed separately, in reading order.
    """

    projection: Projection
    parts: tuple[str, ...]
    part: Column[Any] | None
    """The column with the part that shows a row; None: the page is one part."""
    shown: ColumnElement[bool]
    """The condition for a row to be shown."""
    newest: tuple[ColumnElement[Any], ...]
    """The order of rows in a part."""
    filters: tuple[str, ...]
    """Columns that the page's URL may filter by."""
    fields: tuple[str, ...]
    """Columns of `.json` and `.csv`, besides the key."""
    order: int = 100
    """Its position in the menu: low numbers first."""
    limit: int = 50
    """Rows a part shows; the rest is a number and a link."""
    derive: Callable[[str, Row, str], Mapping[str, Any]] = lambda key, row, today: {}
    """Further fields, from the key, the row, and the day in the hub's time zone."""
    enrich: Callable[[Connection, Sequence[Mapping[str, Any]]], Mapping[str, Any]] = lambda conn, items: {}
    """Further values for its template, about these rows, from other tables."""

    @property
    def name(self) -> str:
        """Its name in the URL."""
        return self.projection.name

    def parts_of(self, row: Row | None) -> frozenset[str]:
        """The parts that show a row."""
        if row is None:
            return frozenset()
        return frozenset({row[self.part.name]} if self.part is not None else self.parts)


TABLE_OPTIONS: Mapping[str, Any] = {"postgresql_with": {"fillfactor": 70}}
"""Options for a `Table`: free space for PostgreSQL's HOT updates, which write no index unless an indexed column changes."""
