"""Too little of everything: processors, and files that a program may have open: F42."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import subprocess
import sys
import time

from tests.faults.row import Row
from tests.faults.stage import Stage

BURNERS = 8


def starved(stage: Stage, chosen: random.Random) -> None:
    """Others take nearly all processors, or a program may open hardly a file more; for ten seconds."""
    chosen.choice((_no_processor, _no_file))(stage, chosen)
    stage.faults += 1


def _no_processor(stage: Stage, chosen: random.Random) -> None:
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(BURNERS)]
    time.sleep(10.0)
    for burner in burners:
        burner.kill()
        burner.wait()


def _no_file(stage: Stage, chosen: random.Random) -> None:
    pid = stage.pid(chosen.choice(("processor", "connectors", "projector")))
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it may end over it, and comes again
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{pid}/fd")) + 4, before[1]))
        time.sleep(10.0)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


ROWS = [Row("F42", "no processor left, or no file to open", 2, 6, starved, any_store=True)]
