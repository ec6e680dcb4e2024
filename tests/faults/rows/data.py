"""Events that come often, and in any order: F19, F20. A fault is a push too many, or one out of its turn."""

from __future__ import annotations

import random
import time

from tests.faults.row import Row
from tests.faults.stage import Stage


def for_a_while(stage: Stage, chosen: random.Random) -> None:
    """Let them come, and count what was amiss."""
    time.sleep(2.0)
    stage.faults = stage.load.repeated + stage.load.out_of_order


ROWS = [
    Row("F19", "three deals in ten come up to ten times", 200, 20_000, for_a_while, repeats=(1,) * 7 + (4, 7, 10)),
    Row("F20", "news of a deal in any order", 200, 20_000, for_a_while, shuffled=True),
]
