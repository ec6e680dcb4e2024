"""`python -m tests.bench.latency [SECONDS] [PER_SECOND]`: from the push of a won deal to the call at the target, whole hub.

The hub runs as its users run it (`hub up` on acme: embedded broker, SQLite); the target answers at once, and may be called as fast
as the hub can: each deal asks for five calls. The clock of a deal starts before its push is sent and ends when its call has
arrived: the project's for "first", the first task's for "task".
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.acme import SECRETS, Sender, deal, environment
from tests.acceptance.outside import Made, Outside
from tests.acceptance.running import RunningHub, running_hub, until

ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
LIMITS = "limits: {per_second: 10000, at_once: 16}"
WARM_UP = 100


class Timed(Outside):
    """Notes when the project and the first task of each deal were asked for."""

    def __init__(self) -> None:
        self.projects: dict[str, float] = {}
        self.tasks: dict[str, float] = {}
        self.deal_of: dict[str, str] = {}
        super().__init__()

    def make(self, kind: str, body: dict[str, Any], key: str | None) -> Made:
        now = time.perf_counter()
        made = super().make(kind, body, key)
        if kind == "projects":
            self.deal_of[made.id] = body["name"].rpartition(" ")[2]
            self.projects.setdefault(self.deal_of[made.id], now)
        if kind == "tasks":
            self.tasks.setdefault(self.deal_of[body["project"]], now)
        return made


def main(seconds: float = 30.0, per_second: float = 100.0) -> None:
    """Run and print, the last line as JSON."""
    target = Timed()
    with tempfile.TemporaryDirectory() as folder, _running(Path(folder), target) as hub:
        total = WARM_UP + int(seconds * per_second)
        sent = _push(hub.url, total, per_second)
        until(lambda: len(target.tasks) >= total, 60, "every deal has a task")
    target.stop()
    report = {"events": total - WARM_UP, "per_second": per_second}
    for name, arrived in (("first_call", target.projects), ("first_task", target.tasks)):
        took = [1000 * (arrived[deal] - at) for deal, at in sent.items() if int(deal) >= WARM_UP]
        report |= {f"{name}_{label}": round(value, 1) for label, value in quantiles(took).items()}
    print(orjson.dumps(report).decode())


def _running(folder: Path, target: Timed) -> AbstractContextManager[RunningHub]:
    """Acme, without the limits that spare its systems: they would be what is measured."""
    shutil.copytree(ACME, folder / "acme")
    settings = (
        (folder / "acme" / "hub.yaml").read_text("utf-8").replace("limits: {per_second: 200, at_once: 16}\n    ", "")
    )
    unlimited = settings.replace("use: http\n", f"use: http\n    {LIMITS}\n")
    (folder / "acme" / "hub.yaml").write_text(unlimited, "utf-8")
    return running_hub(folder / "acme", folder / "data", environment(target.url))


def _push(url: str, total: int, per_second: float) -> dict[str, float]:
    """Push deals at an even pace, each by a sender of its own so that one slow answer delays no other."""
    sent: dict[str, float] = {}
    senders = [Sender(url, "crm", SECRETS["CRM_SECRET"]) for _ in range(16)]
    began = time.perf_counter()
    threads = []
    for number in range(total):
        time.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        sent[str(number)] = time.perf_counter()
        threads.append(threading.Thread(target=senders[number % len(senders)].push, args=(deal(number),)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return sent


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(values)
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    return {label: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for label, share in at.items()}


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
