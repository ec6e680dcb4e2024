"""The ledger's database goes on from an older copy: a backup that is restored, a standby that lacked the last commits, or nothing
at all, as its file is gone: F30."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from pathlib import Path

from hub.ledger import outbox
from hub.ledger.ledger import read_snapshot
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

GONE = 0.4
"""How often there is no copy either."""


def restored(stage: Stage, chosen: random.Random) -> None:
    """All that the database was told since the copy is gone. Pushes would be, too, so none is on its way to the log then."""
    server, ledger = stage.postgres, stage.folder / "data" / "ledger.sqlite"
    is_gone = server is None and chosen.random() < GONE
    copy = server.backup() if server is not None else _copied(ledger)
    time.sleep(chosen.uniform(2.0, 8.0))
    stage.load.hold()
    until(lambda: _unsent(stage) == 0, LONGEST, "all is in the log")
    if server is not None:
        server.go_on_from(copy)
    else:
        with stage.without("connectors"):
            _put_back(copy, ledger)
            if is_gone:
                ledger.unlink()
    stage.load.go_on()
    stage.faults += 1


def _unsent(stage: Stage) -> int:
    with read_snapshot(stage.ledger, "outbox") as conn:
        assert conn is not None
        return outbox.counts(conn)["unpublished"]


def _copied(ledger: Path) -> Path:
    copy = ledger.with_suffix(".copy")
    copy.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(ledger)) as source, contextlib.closing(sqlite3.connect(copy)) as to:
        source.backup(to)
    return copy


def _put_back(copy: Path, ledger: Path) -> None:
    for suffix in ("-wal", "-shm"):
        ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
    copy.rename(ledger)


ROWS = [Row("F30", "the database goes on from an older copy", 1, 5, restored)]
