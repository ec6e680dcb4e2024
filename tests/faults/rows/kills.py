"""Programs that are killed at any moment and at every place where a crash can fall: F1–F6."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.faults.row import Row
from tests.faults.stage import PROGRAMS, Stage

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


ROWS = [
    Row("F1", "kill -9 of the intake", 6, 200, killing("connectors", INTAKE)),
    Row("F2", "kill -9 of the relay", 6, 200, killing("connectors", RELAY)),
    Row("F3", "kill -9 of the worker", 6, 200, killing("worker", WORKER)),
    Row("F4", "kill -9 of the executor", 8, 200, killing("connectors", EXECUTOR)),
    Row("F5", "kill -9 of the projections", 6, 200, killing("projections", PROJECTIONS)),
    Row("F6", "kill -9 of everything at once", 2, 30, power_cut),
]
