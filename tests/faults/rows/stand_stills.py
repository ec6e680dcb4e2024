"""Programs that stand still: for a while, all alike or unwatched, and wake again (F35); for good, and are replaced (F46)."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import time

from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.rows.kills import is_another
from tests.faults.stage import LONGEST, Stage

SESSION = 10.0
"""The worker's session with the broker, in seconds."""
PROGRAMS = ("processor", "connectors", "projector")
SEEN, RECOVERED = 15.0, 30.0
"""Seconds within which a program that stands still must be seen to, and within which a deal must come through again."""


def zombie(stage: Stage, chosen: random.Random) -> None:
    """SIGSTOP for twice the session's length, so that whoever else there is has taken over, and SIGCONT.

    Its supervisor sleeps meanwhile, as with a lid that was closed: it must not end, at its wake-up, who slept as long.
    """
    ended = stage.hub.said("ending")
    with stage.unwatched():
        stage.pause(chosen.choice(PROGRAMS), 2 * SESSION)
    time.sleep(2.0)
    assert stage.hub.said("ending") == ended, "a program was ended for having slept while its supervisor slept"


def frozen(stage: Stage, chosen: random.Random) -> None:
    """Each program in turn is stopped for good: seen, ended, started again, and at work."""
    for program in chosen.sample(PROGRAMS, len(PROGRAMS)):
        old, began = stage.pid(program), time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(old, signal.SIGSTOP)
        stage.faults += 1
        until(functools.partial(_is_seen, stage, program, old), LONGEST, f"{program} is seen to stand still")
        seen = time.monotonic() - began
        until(functools.partial(is_another, stage, program, old), LONGEST, f"{program} has come again")
        number = stage.load.push()
        until(functools.partial(stage.has_project, number), LONGEST, f"deal {number} has a project")
        recovered = time.monotonic() - began
        assert seen <= SEEN, f"{program} stood still for {seen:.1f} s before it was seen"
        assert recovered <= RECOVERED, f"{program} stood still, and all was well only after {recovered:.1f} s"
        stage.recoveries.append(recovered)


def _is_seen(stage: Stage, program: str, old: int) -> bool:
    return program in stage.frozen() or is_another(stage, program, old)


ROWS = [
    Row("F35", "a program and its supervisor stand still for 20 s and wake again", 1, 50, zombie, per_second=5.0),
    Row("F46", "every program in turn stands still for good", 3, 60, frozen, per_second=5.0, any_store=True),
]
