"""Programs that are killed at any moment and at every place where a crash can fall, or told to stop: F1–F7."""

from __future__ import annotations

import functools
import os
import random
import signal
from collections.abc import Callable, Sequence

from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, PROGRAMS, Stage

INTAKE = ("ledger.before-commit", "ledger.committed", "intake.committed")
RELAY = ("relay.taken", "log.before-append", "log.sent", "log.appended", "relay.delivered")
WORKER = ("worker.before-fold", "worker.outputs-delivered", "worker.states-delivered")
EXECUTOR = (
    "executor.accepted",
    "executor.before-sending",
    "executor.sending",
    "executor.before-call",
    "http.before-write",
    "http.written",
    "http.answered",
    "executor.called",
    "executor.before-done",
    "executor.done",
)
PROJECTIONS = ("boards.before-commit", "boards.committed")


PACE = 5.0
"""Deals a second. A program that starts again needs a core for itself for a while: more of them only make the faults rarer."""


def killing(program: str, failpoints: Sequence[str]) -> Callable[[Stage, random.Random], None]:
    """Every other kill falls at a random moment, every other at one of the named places."""

    def fault(stage: Stage, chosen: random.Random) -> None:
        if chosen.random() < 0.5:
            place = chosen.choice(failpoints)
            assert stage.fail_at(place, chosen.randint(1, 20)), f"no one passes {place}"
        else:
            stage.kill(program)

    return fault


def power_cut(stage: Stage, chosen: random.Random) -> None:
    """Everything at once, the supervisor too; then it is started again, as after a power cut."""
    assert stage.hub.process is not None
    pids = [stage.hub.pids().get(program) for program in PROGRAMS]
    stage.hub.process.kill()
    stage.hub.process.wait()
    stage.ended([pid for pid in pids if pid is not None])
    stage.faults += 1
    stage.hub.start()


def told_to_stop(stage: Stage, chosen: random.Random) -> None:
    """Every program in turn ends in order and comes again."""
    for program in PROGRAMS:
        old = stage.pid(program)
        os.kill(old, signal.SIGTERM)
        until(functools.partial(is_another, stage, program, old), LONGEST, f"{program} has come again")
        stage.faults += 1


def is_another(stage: Stage, program: str, old: int) -> bool:
    """Whether a program runs, and not as the process that it was."""
    return stage.hub.pids().get(program) not in (None, old)


ROWS = [
    Row("F1", "kill -9 of the intake", 3, 200, killing("connectors", INTAKE), per_second=PACE),
    Row("F2", "kill -9 of the relay", 3, 200, killing("connectors", RELAY), per_second=PACE),
    Row("F3", "kill -9 of the processor", 3, 200, killing("processor", WORKER), per_second=PACE),
    Row("F4", "kill -9 of the executor", 4, 200, killing("connectors", EXECUTOR), per_second=PACE),
    Row("F5", "kill -9 of the projector", 3, 200, killing("projector", PROJECTIONS), per_second=PACE),
    Row("F6", "kill -9 of everything at once", 1, 30, power_cut),
    Row("F7", "every program in turn is told to stop", 4, 20, told_to_stop),
]
