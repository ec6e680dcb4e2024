"""The broker: killed, paused, away: F8–F10."""

from __future__ import annotations

import random
import time

from tests.faults.row import Row
from tests.faults.stage import Stage


def killed(stage: Stage, chosen: random.Random) -> None:
    """kill -9; its supervisor starts it again."""
    time.sleep(chosen.uniform(0.0, 2.0))
    stage.kill("broker")


def paused(stage: Stage, chosen: random.Random) -> None:
    """It stands still, its connections open."""
    stage.pause("broker", chosen.choice((5.0, 30.0)))


def away(stage: Stage, chosen: random.Random) -> None:
    """It is away for long: pushes are accepted all the while, and drain in order afterwards."""
    before = len(stage.load.sent)
    stage.pause("broker", 40.0)
    assert len(stage.load.sent) > before + 100, "pushes are not accepted while the broker is away"


ROWS = [
    Row("F8", "kill -9 of the broker", 3, 50, killed),
    Row("F9", "the broker stands still for 5 or 30 s", 1, 30, paused, any_store=True),
    Row("F10", "the broker is away for 40 s", 1, 2, away, any_store=True),
]
