"""More workers that come and go: F34."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

from tests.faults.row import Row
from tests.faults.stage import ACME, Stage


def joins_and_leaves(stage: Stage, chosen: random.Random) -> None:
    """A second worker joins the group, folds for a while, and leaves it in order or by kill -9."""
    copy = chosen.choice(("b", "c"))
    with (stage.folder / f"worker-{copy}.log").open("ab") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "hub", "--home", str(ACME), "--copy", copy],
            env=stage.environment_of("worker") | {"HUB_COPY": copy}, stdout=out, stderr=out,
        )  # fmt: skip
    time.sleep(chosen.uniform(3.0, 15.0))
    worker.send_signal(chosen.choice((signal.SIGTERM, signal.SIGKILL)))
    try:
        worker.wait(30)
    except subprocess.TimeoutExpired:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    stage.faults += 1


ROWS = [Row("F34", "workers join and leave", 1, 60, joins_and_leaves, any_store=True)]
