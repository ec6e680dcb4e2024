"""What a board is to the hub: a pure fold of the log and the table that keeps it.

Whoever runs it reads `hub.events`, folds a batch in memory, and writes the rows and the log position in one transaction. So a
table always equals the fold of the log up to its position, whatever crashes; dropping it and reading the log again gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from schemas.event import Event

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
