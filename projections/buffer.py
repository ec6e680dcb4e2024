"""A board's store with rows kept in memory for a while: for building a board anew, which nobody looks at before it is done.

What is written to the database is written as ever, rows with position and fence in one transaction, only seldom and much at once.
So an event costs no look at the database, and a row is written once for the many events that change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Table

from hub.projection import Row
from projections.folding import Change, Place
from projections.store import Batch, BoardStore, Claim


class Buffer(BoardStore):
    """Stands before the store of one board; `flush` at the end. What is lost before that was told to no one.

    `most` changed rows are kept before they are written. `is_new`: the board's table is empty, and need not be asked.
    """

    def __init__(self, store: BoardStore, most: int, *, is_new: bool) -> None:
        self.engine, self._store, self._most = store.engine, store, most
        self._changes: dict[str, Change] = {}
        self._places: dict[int, Place] = {}
        self._last: tuple[str, Claim, Table, Batch] | None = None
        self._unreadable = 0
        self._is_empty = is_new

    def rows(self, table: Table, keys: Iterable[str]) -> dict[str, Row]:
        """As the store's, looking into memory first."""
        found: dict[str, Row] = {}
        missing = []
        for key in keys:
            change = self._changes.get(key)
            if change is None:
                missing.append(key)
            elif change.after is not None:
                found[key] = change.after
        if missing and not self._is_empty:
            found |= self._store.rows(table, missing)
        return found

    def commit(self, name: str, claim: Claim, table: Table, batch: Batch) -> None:
        """Keep a batch; many are written together, in one transaction. Raises FencedError when they are."""
        for key, change in batch.changes.items():
            known = self._changes.get(key)
            self._changes[key] = change if known is None else Change(known.before, change.after)
        self._places.update(batch.places)
        self._unreadable += batch.unreadable
        self._last = (name, claim, table, batch)
        if len(self._changes) >= self._most:
            self.flush()

    def flush(self) -> None:
        """Write what is kept."""
        if self._last is None:
            return
        name, claim, table, batch = self._last
        whole = replace(batch, changes=self._changes, places=self._places, unreadable=self._unreadable)
        self._store.commit(name, claim, table, whole)
        self._is_empty = self._is_empty and not self._changes
        self._changes, self._places, self._unreadable, self._last = {}, {}, 0, None
