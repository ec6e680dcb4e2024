"""The ledger's and the boards' database: killed, paused, killed in the middle of a commit: F29, F31."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time

from tests.faults.row import Row
from tests.faults.stage import Stage


def server_down(stage: Stage, chosen: random.Random) -> None:
    """PostgreSQL is killed with -9 and comes back after a while, or stands still."""
    server = stage.postgres
    assert server is not None
    if chosen.random() < 0.3:
        server.pause(True)
        time.sleep(chosen.uniform(1.0, 10.0))
        server.pause(False)
    else:
        server.kill()
        time.sleep(chosen.uniform(0.0, 5.0))
        server.start()
    stage.faults += 1


def in_a_commit(stage: Stage, chosen: random.Random) -> None:
    """A program dies between the last statement of a transaction and its commit, or right after that."""
    place = f"{chosen.choice(('ledger', 'boards'))}.{chosen.choice(('before-commit', 'committed'))}"
    assert stage.fail_at(place, chosen.randint(1, 30)), f"no one passes {place}"


def is_sound(stage: Stage) -> list[str]:
    """What SQLite says of its own files."""
    wrong, files = list[str](), sorted((stage.folder / "data").glob("*.sqlite"))
    assert len(files) == 2, files
    for file in files:
        with contextlib.closing(sqlite3.connect(file)) as conn:
            said = conn.execute("PRAGMA integrity_check").fetchone()[0]
        wrong += [f"{file.name}: {said}"] if said != "ok" else []
    return wrong


ROWS = [
    Row("F29", "the database server is killed or stands still", 4, 100, server_down, stores=("postgresql",)),
    Row("F31", "kill -9 in the middle of a commit", 6, 100, in_a_commit, stores=("sqlite",), checks=is_sound),
]
