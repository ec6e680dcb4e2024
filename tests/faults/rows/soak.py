"""An hour and more of ordinary work, with a call in fifty that goes wrong: F43. A fault is a minute of it.

The load comes to about half of what two cores carry. In its first hour a program may grow by what it fills for good: the worker
by its cases, the connectors by SQLite's page caches, the broker up to the limit of its heap.
"""

from __future__ import annotations

import math
import random
import time

from tests.faults.row import Row
from tests.faults.rows.http import NONSENSE, REFUSALS, SILENCES, misbehaving
from tests.faults.stage import Stage

MINUTE, LOOK = 60.0, 2.0
A_CASE = 0.01
"""MB of the worker for each deal, with the cases of its project and tasks: ten times what one was measured to take."""
FLAT = {"mb": 16.0, "files": 1.0}
"""What a program that keeps nothing may have grown by after an hour. Python's arenas breathe."""
CACHES = 5 * 16.0
"""MB of page caches: five of the connectors' connections to SQLite, as `hub.ledger.database` sizes them."""
CONNECTIONS = 4.0
"""Files more of the connectors: how many connections stay open to the outside systems differs from minute to minute."""
BROKER = 512.0 + 256.0
"""MB that the broker may ever have: the limit of its heap, and Java's own."""


def a_minute(stage: Stage, chosen: random.Random) -> None:
    """Let it work, and look every two seconds how long a deal takes to its end."""
    until = time.monotonic() + MINUTE
    while time.monotonic() < until:
        time.sleep(LOOK)
        stage.recovers()
    stage.faults += 1


def nothing_grows(stage: Stage) -> list[str]:
    """No program grows with time by more than it may.

    The broker is judged by its size, and its files not at all: a segment is open until compaction takes it, an hour after.
    """
    deals = 3600 * stage.load.per_second
    may = {
        "processor": {**FLAT, "mb": FLAT["mb"] + A_CASE * deals},
        "connectors": {"mb": FLAT["mb"] + CACHES, "files": CONNECTIONS},
        "broker": dict.fromkeys(FLAT, math.inf),
    }
    grown = [
        f"{program} grows by {more} {what} an hour"
        for program, growth in stage.growth.an_hour().items()
        for what, more in growth.items()
        if more > may.get(program, FLAT)[what]
    ]
    largest = stage.growth.peak_mb().get("broker", 0.0)
    return [*grown, f"broker has {largest} MB"] if largest > BROKER else grown


ROWS = [
    Row(
        "F43",
        "a minute of ordinary work",
        1,
        60,
        a_minute,
        misbehaving(0.02, *REFUSALS, *SILENCES, *NONSENSE),
        5.0,
        any_store=True,
        checks=nothing_grows,
    )
]
