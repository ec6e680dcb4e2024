"""Who has an account on the machine, but not the hub's, gets nothing out of the broker or into it: S18. A fault is such a try."""

from __future__ import annotations

import random

from schemas.topics import EVENTS
from tests.faults.other_account import reached
from tests.faults.row import Row
from tests.faults.stage import Stage


def another_account(stage: Stage, _chosen: random.Random) -> None:
    """Try the broker, its files and its ports while deals are won."""
    stage.load.push()
    found = reached(stage.hub.data / "kafka", EVENTS.name)
    assert not found, found
    stage.faults += 1


ROWS = [
    Row(
        "S18",
        "another account of the machine tries the broker and its files",
        1,
        10,
        another_account,
        any_store=True,
        per_second=3.0,
    )
]
