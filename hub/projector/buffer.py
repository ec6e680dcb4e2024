"""A write-back buffer in front of the board store, for rebuilds: readers do not see a shadow board before it is finished.

A flush writes as the store does, rows with position and fence in one transaction, but rarely and in large batches. So an event
costs no database read, and a row that many events change is written once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Table

from hub.kit.projection import Row
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.store import Batch, BoardStore, Claim


class BufferedStore(BoardStore):
    """Buffers the writes of one board; call `flush` at the end. A crash before that loses only rows that no caller was sure of.

    `max_rows`: changed rows held in memory before they are written. `is_new`: the board's table is empty, so reads skip it.
    """

    def __init__(self, store: BoardStore, max_rows: int, *, is_new: bool) -> None:
        self.engine, self._store, self._max_rows = store.engine, store, max_rows
        self._changes: dict[Table, dict[str, RowChange]] = {}
        self._added: dict[Table, list[tuple[Any, ...]]] = {}
        self._places: dict[int, FoldPosition] = {}
        self._last: tuple[str, Claim, Batch] | None = None
        self._unreadable = 0
        self._is_empty = is_new

    def rows(self, table: Table, keys: Iterable[str]) -> dict[str, Row]:
        """Rows of these keys, from memory first and then from the store."""
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
        """Buffer a batch; many batches are written together, in one transaction. That write raises FencedError."""
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
        if self._buffered() >= self._max_rows:
            self.flush()

    def _buffered(self) -> int:
        return sum(map(len, self._changes.values())) + sum(map(len, self._added.values()))

    def flush(self) -> None:
        """Write everything that is buffered."""
        if self._last is None:
            return
        name, claim, batch = self._last
        self._is_empty = self._is_empty and not self._buffered()
        whole = Batch(self._places, self._changes, self._added, batch.delay_ms, self._unreadable)
        self._store.commit(name, claim, whole)
        self._changes, self._added, self._places, self._unreadable, self._last = {}, {}, {}, 0, None
