"""Playing rows: boot, load, faults, heal, and the audit of what came of it."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from tests.acceptance.acme import SECRETS
from tests.acceptance.outside import well_behaved
from tests.acceptance.running import until
from tests.faults.leaks import leaks
from tests.faults.row import Outcome, Row
from tests.faults.stage import LONGEST, RECOVERY, Stage, stage

TASKS = 3
AUDIT = 1200.0
"""Seconds that an audit may take: two hundred faults come with hundreds of thousands of events."""


def play(rows: Sequence[tuple[Row, int]], seed: int, store: str) -> list[Outcome]:
    """Play rows on one hub, each with so many faults: faults add up, also across rows.

    What is lost or done twice in the end is told of every row that was played on the hub.
    """
    outcomes = [Outcome(row.name, store, seed) for row, _ in rows]
    with tempfile.TemporaryDirectory(prefix="hub-faults-") as folder:
        try:
            with stage(Path(folder), store, seed, rows[0][0].needs) as made:
                _play(rows, made, outcomes)
        except AssertionError as error:
            for outcome in outcomes:
                outcome.wrong.append(str(error).partition("\n")[0][:600])
    return outcomes


def _play(rows: Sequence[tuple[Row, int]], made: Stage, outcomes: Sequence[Outcome]) -> None:
    made.load.start()
    try:
        made.recovers()
        for (row, count), outcome in zip(rows, outcomes, strict=True):
            _faults(row, made, count, outcome)
            print(orjson.dumps(outcome.as_json()).decode(), file=sys.stderr, flush=True)  # so far: counted at the end
        _settle(made, outcomes, [row for row, _ in rows])
    finally:
        made.load.give_up()


def _faults(row: Row, made: Stage, count: int, outcome: Outcome) -> None:
    """One row's faults, and how long each recovery took."""
    print(f"{row.name} {outcome.store}: {row.title} × {count}, seed {outcome.seed}", file=sys.stderr, flush=True)
    chosen, began, sent = random.Random(outcome.seed), time.monotonic(), len(made.load.sent)
    made.begin(row, outcome.seed)
    while made.faults < count:
        row.fault(made, chosen)
        made.recovers()
    outcome.faults, outcome.events = made.faults, len(made.load.sent) - sent
    outcome.seconds = round(time.monotonic() - began, 1)
    taken = sorted(made.recoveries)
    outcome.stuck = sum(seconds > RECOVERY for seconds in taken)
    if taken:
        shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
        outcome.recovery = {name: round(taken[int((len(taken) - 1) * share)], 2) for name, share in shares.items()}
    outcome.an_hour = made.growth.an_hour()
    outcome.peak_mb = {name: round(size, 1) for name, size in made.growth.peak_mb().items()}


def _settle(made: Stage, outcomes: Sequence[Outcome], rows: Sequence[Row]) -> None:
    """Heal, let everything come to rest, and count."""
    made.outside.mischief = well_behaved
    made.load.stop()
    wrong, events = list(made.load.failed), len(made.load.sent)
    try:
        until(lambda: len(made.outside.of("messages")) >= events, LONGEST, "every deal has its message")
        until(lambda: bool(made.hub.json("audit", timeout=AUDIT).get("ok")), LONGEST, "the audit holds")
    except AssertionError as error:
        wrong.append(f"{error}; audit: {made.hub.run('audit', timeout=AUDIT).stdout[-800:]}")
    lost, doubled = _counts(made, events)
    wrong += [what for row in rows for what in row.checks(made)]
    wrong += leaks(made.folder / "data", made.hub.client, SECRETS.values())
    for outcome in outcomes:
        outcome.lost, outcome.doubled = lost, doubled
        outcome.wrong += wrong


def _counts(made: Stage, events: int) -> tuple[int, int]:
    """Effects that are missing, and effects too many. What the target said it had done, and had not, is its own loss."""
    lost = doubled = 0
    for kind, each in {"projects": 1, "tasks": TASKS, "messages": 1}.items():
        marks = made.outside.marks(kind)
        lied = made.outside.lied if kind == "tasks" else set[str]()
        lost += max(0, events * each - len(marks) - len(lied - marks.keys()))
        doubled += sum(marks.values()) - len(marks) + max(0, len(marks) - events * each)
    return lost, doubled
