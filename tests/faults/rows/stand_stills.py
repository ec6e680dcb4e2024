"""Programs that stand still for longer than anyone waits for them, and wake again: F35."""

from __future__ import annotations

import random

from tests.faults.row import Row
from tests.faults.stage import Stage

SESSION = 10.0
"""The worker's session with the broker, in seconds."""


def zombie(stage: Stage, chosen: random.Random) -> None:
    """SIGSTOP for twice the session's length, so that whoever else there is has taken over, and SIGCONT."""
    stage.pause(chosen.choice(("worker", "connectors", "projections")), 2 * SESSION)


ROWS = [Row("F35", "a program stands still for 20 s and wakes again", 1, 50, zombie, per_second=5.0)]
