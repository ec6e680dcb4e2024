"""`python -m tests.bench.webhook [--rounds N] [--deals N]`: from the webhook of a won deal to three tasks in the project tool.

The hub runs whole, as `hub up` runs it (embedded broker, SQLite with synchronous=FULL): a push is verified and durable before it is
answered, and each task is asked for under a key of its own. Node-RED does the same calls and keeps nothing. Senders, target and
machine are the same; a round counts only when each deal has its three tasks and no more.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import requests

from tests.acceptance.running import running_hub, until
from tests.bench import node_red
from tests.bench.environments import MissingToolError
from tests.bench.sink import TASKS
from tests.pushing import SECRET

HOME = Path(__file__).with_name("three_tasks")
WARM_UP = 100
CONNECTIONS = 16
MOST_SECONDS = 300.0

System = Callable[[str, Path], AbstractContextManager[int]]
"""Runs with its calls going to a target's URL and its data in a folder; gives the port that takes webhooks."""


@contextlib.contextmanager
def hub(target: str, data: Path, home: Path = HOME) -> Iterator[int]:
    """The product."""
    with running_hub(home, data, {"CRM_SECRET": SECRET, "PM_URL": target}) as running:
        yield running.port


SYSTEMS: Mapping[str, System] = {"hub": hub, node_red.NAME: node_red.running}


def main() -> int:
    """Race and print, the last line as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.webhook", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deals", type=int, default=1_500)
    chosen = parser.parse_args()
    try:
        node_red.install()
    except MissingToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    rates = defaultdict[str, list[float]](list)
    for number in range(1, chosen.rounds + 1):
        for name, system in SYSTEMS.items():
            rates[name].append(run(system, chosen.deals))
            print(f"round {number} {name}: {rates[name][-1]:,.1f} deals/s", file=sys.stderr, flush=True)
    ratios = [ours / theirs for ours, theirs in zip(rates["hub"], rates[node_red.NAME], strict=True)]
    for name, found in {**rates, f"hub ÷ {node_red.NAME}": ratios}.items():
        print(f"{name}: {_three(found)} (min / median / max)")
    print(orjson.dumps({**rates, "hub / node-red": ratios}).decode())
    return 0


def run(system: System, deals: int) -> float:
    """Deals a second, each with its three tasks; raises AssertionError when a task is missing, or there is one too many."""
    with tempfile.TemporaryDirectory(prefix="hub-webhook-") as folder, running_sink() as target:
        with system(target, Path(folder) / "data") as port:
            _push(port, 0, WARM_UP)
            until(lambda: len(_done(target)["complete"]) >= WARM_UP, MOST_SECONDS, "the warm-up is over")
            _push(port, WARM_UP, deals)
            total = WARM_UP + deals
            until(lambda: len(_done(target)["complete"]) >= total, MOST_SECONDS, "each deal has its tasks")
        done = _done(target)
    assert done["tasks"] == TASKS * total, f"{done['tasks']} tasks for {total} deals"
    return float(deals / (done["complete"][-1] - done["complete"][WARM_UP]))


@contextlib.contextmanager
def running_sink() -> Iterator[str]:
    """The target's URL, for the time of the block."""
    with subprocess.Popen([sys.executable, "-m", "tests.bench.sink"], stdout=subprocess.PIPE) as sink:
        assert sink.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(sink.stdout.readline())}"
        finally:
            sink.kill()


def _done(target: str) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{target}/done", timeout=30).json()
    return found


def _push(port: int, first: int, many: int) -> None:
    """Push from a process of its own; raises unless all were accepted."""
    command = [sys.executable, "-m", "tests.bench.pushers", *map(str, (port, first, many, CONNECTIONS))]
    pushed = subprocess.run(command, input=b"\n", check=False, capture_output=True)
    assert pushed.returncode == 0, pushed.stderr.decode()[-1500:]


def _three(values: Sequence[float]) -> str:
    return " / ".join(f"{value:,.2f}" for value in (min(values), statistics.median(values), max(values)))


if __name__ == "__main__":
    sys.exit(main())
