"""`python -m tests.bench.one_call [SECONDS] [PER_SECOND]`: from a push to the one call that it asks for, whole hub.

The hub runs whole, as `hub up` runs it (embedded broker, SQLite, synchronous=FULL). Senders and target are programs of their own;
the clock of a push starts when it was due, whether or not its sender was late, and ends when the call has arrived.
`tests.bench.latency` is the same for acme, where each deal asks for five calls.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
import requests
import yaml

from tests.acceptance.running import until
from tests.bench.latency import quantiles
from tests.bench.webhook import CONNECTIONS, HOME, hub, running_sink

WARM_UP = 200


def main(seconds: float = 30.0, per_second: float = 100.0) -> None:
    """Run and print one line of JSON."""
    many = int(seconds * per_second)
    with tempfile.TemporaryDirectory(prefix="hub-one-call-") as folder, running_sink() as target:
        home = one_task(Path(folder) / "home")
        with hub(target, Path(folder) / "data", home) as port:
            _push(target, port, 0, WARM_UP, per_second)
            began = _push(target, port, WARM_UP, many, per_second)
        arrived = calls(target)
    took = [arrived[called(WARM_UP + n)] - (began + n / per_second) for n in range(many)]
    report = {"pushes": many, "per_second": per_second, **quantiles([1000 * each for each in took])}
    print(orjson.dumps(report | {"call": "first"}).decode())


def one_task(home: Path) -> Path:
    """The bench's home, with the first of its rule's tasks alone."""
    shutil.copytree(HOME, home)
    file = home / "rules" / "three_tasks.yaml"
    rule = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump(rule | {"do": rule["do"][:1]}, allow_unicode=True), "utf-8")
    return home


def _push(target: str, port: int, first: int, many: int, per_second: float) -> float:
    """Push at an even pace until each has had its call; when the first one was due."""
    asked = (port, first, many, CONNECTIONS, per_second)
    command = [sys.executable, "-m", "tests.bench.pushers", *map(str, asked)]
    pushed = subprocess.run(command, input=b"\n", check=True, stdout=subprocess.PIPE)
    until(lambda: len(calls(target)) >= first + many, 60, "every push has its call")
    return float(orjson.loads(pushed.stdout.splitlines()[-1])["began"])


def called(number: int) -> str:
    """The deal of this number, as its call names it."""
    return f"O-{number} 网关项目"


def calls(target: str) -> dict[str, float]:
    """Deal → when its first call came."""
    found: dict[str, float] = requests.get(f"{target}/first", timeout=30).json()
    return found


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
