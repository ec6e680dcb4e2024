"""Playing a row: boot, load, faults, heal, and the audit of what came of it."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from tests.acceptance.acme import SECRETS
from tests.acceptance.outside import well_behaved
from tests.acceptance.running import until
from tests.faults.leaks import leaks
from tests.faults.row import Outcome, Row
from tests.faults.stage import LONGEST, RECOVERY, Stage, stage

TASKS = 3


def play(row: Row, count: int, seed: int, store: str) -> Outcome:
    """Play it once, with so many faults."""
    outcome = Outcome(row.name, store, seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"hub-{row.name}-") as folder:
        try:
            with stage(Path(folder), store, seed, row.mischief(seed), proxied=row.proxied) as made:
                made.load.begin(row.per_second, row.repeats, row.shuffled)
                _faults(row, made, count, seed)
                _settle(row, made, outcome)
        except AssertionError as error:
            outcome.wrong.append(str(error).partition("\n")[0][:600])
    outcome.seconds = round(time.monotonic() - began, 1)
    return outcome


def _faults(row: Row, made: Stage, count: int, seed: int) -> None:
    chosen = random.Random(seed)
    made.recovers()
    made.recoveries.clear()
    while made.faults < count:
        row.fault(made, chosen)
        made.recovers()


def _settle(row: Row, made: Stage, outcome: Outcome) -> None:
    """Heal, let everything come to rest, and count."""
    made.outside.mischief = well_behaved
    made.load.stop()
    outcome.faults, outcome.events = made.faults, len(made.load.sent)
    outcome.wrong += made.load.failed
    try:
        until(lambda: len(made.outside.of("messages")) >= outcome.events, LONGEST, "every deal has its message")
        until(lambda: bool(made.hub.json("audit").get("ok")), LONGEST, "the audit holds")
    except AssertionError as error:
        outcome.wrong.append(f"{error}; audit: {made.hub.run('audit').stdout[-800:]}")
    made.measure()
    _count(made, outcome)
    outcome.wrong += row.checks(made)
    outcome.wrong += leaks(made.folder / "data", made.environment_of("worker")["HUB_KAFKA"], SECRETS.values())


def _count(made: Stage, outcome: Outcome) -> None:
    wanted = {"projects": 1, "tasks": TASKS, "messages": 1}
    for kind, each in wanted.items():
        marks = made.outside.marks(kind)
        outcome.lost += max(0, outcome.events * each - len(marks))
        outcome.doubled += sum(marks.values()) - len(marks) + max(0, len(marks) - outcome.events * each)
    taken = sorted(made.recoveries)
    outcome.stuck = sum(seconds > RECOVERY for seconds in taken)
    if taken:
        outcome.recovery = {"p50": round(taken[len(taken) // 2], 2), "max": round(taken[-1], 2)}
    outcome.peak_mb = {name: round(size, 1) for name, size in made.peak_mb.items()}
