"""Removes leftover boards: tables of boards that this version no longer folds, once no program writes them.

A program of the earlier version may still run beside this one, so a board is removed only after it has not moved for
TAKEOVER_TIMEOUT_S, the silence after which a board may be taken over.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

import structlog
from sqlalchemy import inspect

from hub.errors import RetryableError
from hub.projector.runner import TAKEOVER_TIMEOUT_S
from hub.projector.store import PREFIX, BoardStore, Owner, forget, lock_schema, metadata, read_owner

log = structlog.get_logger(__name__)
RETRY_DELAY_S = 1.0
"""Seconds before retrying while the store is unavailable."""


def leftover_boards(store: BoardStore, known: Collection[str]) -> dict[str, Owner]:
    """Boards in the store that are not `known` to this version. A shadow belongs to its board."""
    return {name: owner for name, owner in store.owners().items() if name.removesuffix("__shadow") not in known}


def remove_boards(store: BoardStore, unchanged: Mapping[str, Owner]) -> list[str]:
    """Remove each board whose owner row is still as in `unchanged`, with its table; the names of the removed boards."""
    removed = []
    for name, owner in sorted(unchanged.items()):
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


def remove_leftovers(
    store: BoardStore, known: Collection[str], stop: threading.Event, silent: float = TAKEOVER_TIMEOUT_S
) -> None:
    """Wait `silent` seconds, then remove the leftover boards that have not moved; returns when done, or at `stop`."""
    while not stop.is_set():
        try:
            leftovers = leftover_boards(store, known)
            if not leftovers or stop.wait(silent):
                return
            for name in remove_boards(store, leftovers):
                log.info("board.removed", board=name)
            return
        except RetryableError:
            stop.wait(RETRY_DELAY_S)
