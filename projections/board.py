"""What a page needs to know of a projection to show it: its parts, its filters, and the fields it gives away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection

from hub.projection import Projection, Row


@dataclass(frozen=True)
class Board:
    """A projection with a page. `parts` are pieces of the page that are fetched again by themselves, in reading order."""

    projection: Projection
    template: str
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
