"""`python -m tests.bench.beside_large [--tasks N] [--deals N] [--per-second N]`: do others wait for one large project?

A thousand deals are pushed at an even pace, each asks for one call; once alone, and once while twenty thousand tasks are pushed
into one project, evenly over the same time, behind a warm-up of both. The hub runs whole, as `hub up` runs it (embedded broker,
SQLite, synchronous=FULL); senders and target are programs of their own. A deal's clock runs from when its push was due to its
call. No program may restart.
The last line is JSON: p50 and p99 of both, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import yaml

from tests.acceptance.running import running_hub, until
from tests.bench import pushers
from tests.bench.latency import quantiles
from tests.bench.one_call import WARM_UP, called, calls, one_task
from tests.bench.webhook import CONNECTIONS, running_sink
from tests.pushing import SECRET

TASK = {
    "if": 'body.type == "task.opened"',
    "type": "work.task.created",
    "subject": "task/crm/${body.task.id}",
    "belongs_to": "project/crm/LARGE",
    "version": "1",
    "time": "${body.at}",
    "data": {"title": "${body.task.title}"},
}
MOST_SECONDS = 900.0
WARM_TASKS = 2_000


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beside_large", description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--deals", type=int, default=1_000)
    parser.add_argument("--per-second", type=float, default=20.0)
    parser.add_argument("--flood", nargs=4, metavar=("PORT", "FIRST", "MANY", "PER_SECOND"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.flood:
        port, first, many = map(int, asked.flood[:3])
        flood(port, first, many, float(asked.flood[3]))
        return 0
    with tempfile.TemporaryDirectory(prefix="hub-beside-") as folder, running_sink() as target:
        home = _home(Path(folder) / "home")
        with running_hub(home, Path(folder) / "data", {"CRM_SECRET": SECRET, "PM_URL": target}) as hub:
            report = _race(target, hub.port, asked)
            said = (hub.data / "up.log").read_text("utf-8").splitlines()
    restarts = [line for line in said if '"what":"restart' in line or '"what":"ended' in line]
    print(orjson.dumps({**report, "restarts": restarts}).decode())
    return 1 if restarts else 0


def _race(target: str, port: int, asked: argparse.Namespace) -> dict[str, Any]:
    """The deals alone, then beside the tasks, which come at an even pace for as long as the deals do."""
    many, pace = asked.deals, asked.per_second
    warm = Flood(port, 0, WARM_TASKS, asked.tasks * pace / many)
    warm.begin()
    _deals(target, port, 0, WARM_UP, pace)
    warm.end()
    alone = _deals(target, port, WARM_UP, many, pace)
    tasks = Flood(port, WARM_TASKS, asked.tasks, asked.tasks * pace / many)
    tasks.begin()
    beside = _deals(target, port, WARM_UP + many, many, pace)
    told = tasks.end()
    ratio = {name: round(beside[name] / alone[name], 2) for name in ("p50_ms", "p99_ms")}
    return {"deals": many, "per_second": pace, "alone": alone, "beside": beside, "ratio": ratio, "tasks": told}


def _home(folder: Path) -> Path:
    """The bench's home, whose CRM tells of tasks of one project too."""
    home = one_task(folder)
    file = home / "hub.yaml"
    told = yaml.safe_load(file.read_text("utf-8"))
    told["connectors"]["crm"]["receive"]["events"].append(TASK)
    file.write_text(yaml.safe_dump(told, allow_unicode=True), "utf-8")
    return home


def _deals(target: str, port: int, first: int, many: int, per_second: float) -> dict[str, float]:
    """Push deals at an even pace, and wait until each has its call."""
    asked = (port, first, many, CONNECTIONS, per_second)
    command = [sys.executable, "-m", "tests.bench.pushers", *map(str, asked)]
    pushed = subprocess.run(command, input=b"\n", check=True, stdout=subprocess.PIPE)
    began = float(orjson.loads(pushed.stdout.splitlines()[-1])["began"])
    until(lambda: len(calls(target)) >= first + many, MOST_SECONDS, "every deal has its call")
    at = calls(target)
    return quantiles([1000 * (at[called(first + n)] - (began + n / per_second)) for n in range(many)])


class Flood:
    """The tasks, pushed by a program of its own."""

    def __init__(self, port: int, first: int, many: int, per_second: float) -> None:
        numbers = map(str, (port, first, many, per_second))
        command = [sys.executable, "-m", "tests.bench.beside_large", "--flood", *numbers]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._program.stdout is not None
        self._program.stdout.readline()

    def begin(self) -> None:
        """All are signed; push."""
        assert self._program.stdin is not None
        self._program.stdin.write(b"\n")
        self._program.stdin.close()

    def end(self) -> dict[str, float]:
        """Wait until all are accepted; how it went."""
        assert self._program.stdout is not None
        told: dict[str, float] = orjson.loads(self._program.stdout.read().splitlines()[-1])
        assert self._program.wait() == 0
        return told


def flood(port: int, first: int, many: int, per_second: float) -> None:
    """Push the tasks: each is signed before the first is sent."""
    pushes = [pushers.request(number, task(number)) for number in range(first, first + many)]
    print("signed", flush=True)
    sys.stdin.readline()
    told = asyncio.run(pushers.push_all(port, pushes, CONNECTIONS, per_second))
    print(orjson.dumps(told).decode(), flush=True)


def task(number: int) -> bytes:
    """What the CRM posts about a task of the large project."""
    return orjson.dumps(
        {
            "type": "task.opened",
            "at": "2026-11-20T10:00:00+08:00",
            "task": {"id": f"L-{number}", "title": f"核对第 {number} 批到货并登记入库"},
        }
    )


if __name__ == "__main__":
    sys.exit(main())
