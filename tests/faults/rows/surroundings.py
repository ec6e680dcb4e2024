"""The disk is full or stands still, the clock is wrong: F15, F16, F18."""

from __future__ import annotations

import random
import time

from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.surroundings import fill, frozen, turn

JUMPS = (-86_400, -3600, -10, 10, 3600, 86_400)
"""Seconds that the clock of all programs but the broker is off for a while."""


def full(stage: Stage, chosen: random.Random) -> None:
    """Not a byte fits any more: log, ledger, boards and the database server's own files. PostgreSQL has to be started again."""
    filler = fill(stage.folder)
    time.sleep(chosen.uniform(5.0, 15.0))
    filler.unlink()
    if stage.postgres is not None:
        stage.postgres.start_again()
    stage.faults += 1


def still(stage: Stage, chosen: random.Random) -> None:
    """Every write waits."""
    with frozen(stage.folder):
        time.sleep(chosen.choice((5.0, 30.0)))
    stage.faults += 1


def turned(stage: Stage, chosen: random.Random) -> None:
    """The clock jumps, and jumps back. Meanwhile the hub refuses what was signed at other times, as it must; senders push again."""
    clock = stage.folder / "clock"
    turn(clock, chosen.choice(JUMPS))
    time.sleep(chosen.uniform(5.0, 12.0))
    turn(clock, 0)
    stage.faults += 1


ROWS = [
    Row("F15", "the only disk is full", 1, 8, full, needs="disk"),
    Row("F16", "the only disk stands still for 5 or 30 s", 1, 4, still, needs="disk", any_store=True),
    Row("F18", "the clock is wrong by up to a day", 2, 10, turned, passing=401, needs="clock", any_store=True),
]
