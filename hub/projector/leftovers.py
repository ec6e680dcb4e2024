"""Boards that are no more: what an earlier version's board has left in the store goes, once nobody writes it.

A program of that version may still run beside this one, so a board goes only when it has not moved for as long as it takes until
a board is free to be taken over.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

import structlog
from sqlalchemy import inspect

from hub.errors import RetryableError
from hub.projector.runner import SILENT
from hub.projector.store import PREFIX, BoardStore, Owner, forget, lock_schema, metadata, read_owner

log = structlog.get_logger(__name__)
AGAIN = 1.0
"""Seconds until a store that is away is looked at again."""


def left_over(store: BoardStore, known: Collection[str]) -> dict[str, Owner]:
    """The boards in the store that no program of this version folds. A shadow belongs to its board."""
    return {name: owner for name, owner in store.owners().items() if name.removesuffix("__shadow") not in known}


def remove(store: BoardStore, seen: Mapping[str, Owner]) -> list[str]:
    """Remove every board that still stands as it was `seen`, with its table; their names."""
    removed = []
    for name, owner in sorted(seen.items()):
        with store.writing() as conn:
            lock_schema(conn)
            if read_owner(conn, name) != owner:
                continue
            forget(conn, name)
            table = f"{PREFIX}{name}"
            if table not in metadata.tables and inspect(conn).has_table(table):
                conn.exec_driver_sql(f"DROP TABLE {conn.dialect.identifier_preparer.quote(table)}")
        removed.append(name)
    return removed


def clear(store: BoardStore, known: Collection[str], stop: threading.Event, silent: float = SILENT) -> None:
    """Look, wait, and remove what has not moved; returns when that is done, or at `stop`."""
    while not stop.is_set():
        try:
            seen = left_over(store, known)
            if not seen or stop.wait(silent):
                return
            for name in remove(store, seen):
                log.info("board.removed", board=name)
            return
        except RetryableError:
            stop.wait(AGAIN)
