"""The ledger's database goes on from an older copy: a backup that is restored, a standby that lacked the last commits: F30."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from hub.cli.running_hub import look_at
from hub.ledger import outbox
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage


def restored(stage: Stage, chosen: random.Random) -> None:
    """All that the database was told since the copy is gone. Pushes would be, too, so none is on its way to the log then."""
    server, ledger = stage.postgres, stage.folder / "data" / "ledger.sqlite"
    copy = server.backup() if server is not None else _copied(ledger)
    time.sleep(chosen.uniform(2.0, 8.0))
    stage.load.hold()
    until(lambda: _unsent(stage) == 0, LONGEST, "all is in the log")
    if server is not None:
        server.go_on_from(copy)
    else:
        with _without_connectors(stage):
            _put_back(copy, ledger)
    stage.load.go_on()
    stage.faults += 1


def _unsent(stage: Stage) -> int:
    url = stage.environment_of("connectors").get("HUB_LEDGER", f"sqlite:///{stage.folder}/data/ledger.sqlite")
    with look_at(url, "outbox") as conn:
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


@contextlib.contextmanager
def _without_connectors(stage: Stage) -> Iterator[None]:
    """The program is killed, and its supervisor stands still so that it does not come again before the end."""
    assert stage.hub.process is not None
    pid = stage.pid("connectors")
    stage.hub.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        until(lambda: _is_gone(pid), LONGEST, "the program is gone")
        yield
    finally:
        stage.hub.process.send_signal(signal.SIGCONT)


def _is_gone(pid: int) -> bool:
    """Also when the supervisor, who stands still, has not yet taken note of it."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


ROWS = [Row("F30", "the database goes on from an older copy", 1, 5, restored)]
