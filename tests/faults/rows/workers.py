"""More workers that come and go, and that sleep while another has their part: F34, F35b."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.rows.stand_stills import SESSION
from tests.faults.stage import LONGEST, Stage
from tests.process_state import stands_still

AT_WORK = ("worker.before-fold", "worker.outputs-delivered")


@contextlib.contextmanager
def another_worker(stage: Stage, chosen: random.Random) -> Iterator[subprocess.Popen[bytes]]:
    """A second worker for the time of the block; it leaves in order or by kill -9."""
    copy = chosen.choice(("b", "c"))
    with (stage.folder / f"worker-{copy}.log").open("ab") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "hub.programs.processor", "--home", str(stage.hub.home), "--copy", copy],
            env=stage.environment_of("processor") | {"HUB_COPY": copy}, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        yield worker
    finally:
        worker.send_signal(chosen.choice((signal.SIGTERM, signal.SIGKILL)))
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def joins_and_leaves(stage: Stage, chosen: random.Random) -> None:
    """A second worker joins the group, folds for a while, and leaves it."""
    with another_worker(stage, chosen):
        time.sleep(chosen.uniform(3.0, 15.0))
    stage.faults += 1


def sleeps_at_work(stage: Stage, chosen: random.Random) -> None:
    """One of two workers stands still amid a chunk; the other takes its part; then it wakes, and says what it had to say."""
    with another_worker(stage, chosen) as other:
        time.sleep(5.0)  # it joins, and is at work
        assert stage.fail_at(chosen.choice(AT_WORK), chosen.randint(1, 20), how="stop"), "no one is at work"
        workers = (stage.pid("processor"), other.pid)
        until(lambda: any(map(stands_still, workers)), LONGEST, "one of them stands still")
        asleep = next(pid for pid in workers if stands_still(pid))
        with stage.unwatched():  # or the supervisor would replace one that is its own
            time.sleep(2 * SESSION)
            with contextlib.suppress(ProcessLookupError):
                os.kill(asleep, signal.SIGCONT)
        stage.recovers()


ROWS = [
    Row("F34", "workers join and leave", 1, 60, joins_and_leaves, any_store=True),
    Row(
        "F35b",
        "a worker sleeps amid its work while another has its part",
        1,
        20,
        sleeps_at_work,
        per_second=5.0,
        any_store=True,
    ),
]
