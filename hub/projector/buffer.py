"""A board's store with rows kept in memory for a while: for building a board anew, which nobody looks at before it is done.

What is written to the database is written as ever, rows with position and fence in one transaction, only seldom and much at once.
So an event costs no look at the database, and a row is written once for the many events that change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table

from hub.kit.projection import Row
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.store import Batch, BoardStore, Claim


class Buffer(BoardStore):
    """Stands before the store of one board; `flush` at the end. What is lost before that was told to no one.

    `most` changed rows are kept before they are written. `is_new`: the board's table is empty, and need not be asked.
    """

    def __init__(self, store: BoardStore, most: int, *, is_new: bool) -> None:
        self.engine, self._store, self._most = store.engine, store, most
        self._changes: dict[Table, dict[str, RowChange]] = {}
        self._added: dict[Table, list[tuple[Any, ...]]] = {}
        self._places: dict[int, FoldPosition] = {}
        self._last: tuple[str, Claim, Batch] | None = None
        self._unreadable = 0
        self._is_empty = is_new

    def rows(self, table: Table, keys: Iterable[str]) -> dict[str, Row]:
        """As the store's, looking into memory first."""
        found: dict[str, Row] = {}
        missing = []
        changes = self._changes.get(table, {})
        for key in keys:
            change = changes.get(key)
            if change is None:
                missing.append(key)
            elif change.after is not None:
                found[key] = change.after
        if missing and not self._is_empty:
            found |= self._store.rows(table, missing)
        return found

    def commit(self, name: str, claim: Claim, batch: Batch) -> None:
        """Keep a batch; many are written together, in one transaction. Raises FencedError when they are."""
        for table, changes in batch.changes.items():
            known = self._changes.setdefault(table, {})
            for key, change in changes.items():
                before = known.get(key)
                known[key] = change if before is None else RowChange(before.before, change.after)
        for table, rows in batch.added.items():
            self._added.setdefault(table, []).extend(rows)
        self._places.update(batch.places)
        self._unreadable += batch.unreadable
        self._last = (name, claim, batch)
        if self._kept() >= self._most:
            self.flush()

    def _kept(self) -> int:
        return sum(map(len, self._changes.values())) + sum(map(len, self._added.values()))

    def flush(self) -> None:
        """Write what is kept."""
        if self._last is None:
            return
        name, claim, batch = self._last
        self._is_empty = self._is_empty and not self._kept()
        whole = Batch(self._places, self._changes, self._added, batch.delay_ms, self._unreadable)
        self._store.commit(name, claim, whole)
        self._changes, self._added, self._places, self._unreadable, self._last = {}, {}, {}, 0, None
