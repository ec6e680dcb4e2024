"""`python -m tests.cluster [--minutes N] [--rate DEALS_A_SECOND]`: the whole cluster under load while its parts are killed.

Three brokers, PostgreSQL, three workers, two connectors and two projections programs, with TLS and a sign-in. Ends with one
line of JSON; exit 0 only when every count is exact, nothing was done twice and `hub audit` holds.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from hub.home import Home
from hub.log.kafka_log import KafkaLog
from schemas.topics import EVENTS
from tests.acceptance.acme import environment
from tests.acceptance.outside import Outside
from tests.acceptance.running import HUB, until
from tests.cluster.brokers import NAMES, Brokers
from tests.cluster.compose import DOCKER
from tests.cluster.copies import DOORS, WORKERS, Copies, cluster_home
from tests.cluster.database import secured
from tests.cluster.figures import cpu_seconds, disk, memory, quantiles
from tests.cluster.load import Load
from tests.cluster.nemesis import Nemesis, felt

TASKS = 3
IDLE, STEADY = 15.0, 60.0
"""Seconds for which it is watched before the load, and under it before anything is killed."""
START = 300.0
"""Seconds for each step of the start: three brokers on two busy cores take their time."""


class Cluster:
    """Everything that runs. Use as a context."""

    def __init__(self, folder: Path, rate: float, seed: int) -> None:
        self.folder, tls = folder, folder / "tls"
        names = [f"{name},127.0.0.1" for name in (*NAMES, "postgres")]
        subprocess.run(["sh", str(DOCKER / "certificates.sh"), str(tls), *names], check=True)
        password = secrets.token_hex(12)
        self.brokers = Brokers(folder / "kafka", tls, password)
        self.brokers.prepare()
        self.outside = Outside()
        self.postgres, ledger, boards = secured(_made(folder / "postgres"), tls, password)
        home = cluster_home(folder / "home", self.brokers.bootstrap, tls / "ca.pem")
        self.environment = {
            **environment(self.outside.url), "KAFKA_PASSWORD": password, "HUB_LEDGER": ledger, "HUB_BOARDS": boards,
        }  # fmt: skip
        self.client = Home.load(home, self.environment).kafka_client()
        self.copies = Copies(home, folder, self.environment)
        self.load = Load(self.copies.urls, self.outside, rate, seed)
        self.nemesis = Nemesis(self.brokers, self.copies, self.load, self.client, ledger, boards)

    def start(self) -> float:
        """Start the brokers, the workers, then the rest, as depends_on in docker/cluster.yaml has it; the seconds it took."""
        began = time.monotonic()
        for name in NAMES:
            self.brokers.start(name)
        until(lambda: self.brokers.answer(self.client) == len(NAMES), START, "three brokers answer")
        self.copies.start("worker")
        until(lambda: any(map(self.copies.ready, WORKERS)), START, self._why("a worker is ready"))
        self.copies.start("connectors")
        self.copies.start("projections")
        until(lambda: all(map(self.copies.ready, self.copies.programs)), START, self._why("all programs are ready"))
        until(lambda: self.brokers.in_sync(self.client, 12), START, "topics are kept three times")
        return time.monotonic() - began

    def _why(self, what: str) -> str:
        return f"{what}; logs in {self.folder}"

    def counts(self) -> dict[str, int]:
        """What was made outside."""
        return {kind: len(self.outside.of(kind)) for kind in ("projects", "tasks", "messages", "postings")}

    def expected(self) -> dict[str, int]:
        """What has to be made of the deals that were accepted: no more, no less."""
        deals = self.load.deals
        return {"projects": deals, "tasks": deals * TASKS, "messages": deals, "postings": deals}

    def doubled(self) -> dict[str, int]:
        """Marks that were made more than once."""
        return {kind: sum(1 for times in self.outside.marks(kind).values() if times > 1) for kind in self.expected()}

    def audit(self) -> dict[str, Any]:
        """`hub audit`, as a person on any machine of the cluster would ask."""
        command = [*HUB, "audit", "--home", str(self.copies.home), "--json"]
        environ = {**self.copies.environment, "HUB_DATA": str(self.folder / "desk")}
        done = subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", timeout=300, check=False)
        report: dict[str, Any] = (
            orjson.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {"said": done.stderr}
        )
        return {**report, "exit": done.returncode}

    def pids(self) -> dict[str, int]:
        """Everything that has memory."""
        brokers = {name: process.pid for name, process in self.brokers.running.items()}
        postgres = self.postgres.pid()
        return {**self.copies.pids(), **brokers, **({"postgres": postgres} if postgres else {})}

    def stop(self) -> None:
        """End it all."""
        self.load.stop()
        self.copies.stop()
        self.brokers.stop()
        self.postgres.stop()
        self.outside.stop()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def run(cluster: Cluster, minutes: float, quiet: bool) -> dict[str, Any]:
    """The run itself; its figures."""
    started = cluster.start()
    idle = measured(cluster, IDLE)
    began = time.monotonic()
    cluster.load.start()
    time.sleep(IDLE)
    steady = measured(cluster, STEADY)
    if not quiet:
        cluster.nemesis.run(minutes * 60)
    cluster.load.close_the_till()
    pushed = time.monotonic()
    expected = _settle(cluster)
    settled = time.monotonic()
    report: dict[str, Any] = {}

    def holds() -> bool:
        report.update(cluster.audit())
        return bool(report["exit"] == 0)

    until(holds, 240, f"hub audit holds: {report}")
    events = int(report["counts"]["in_the_log"])
    kills = cluster.nemesis.kills
    ends = [*(kill.at for kill in kills[1:]), pushed]
    return {
        "deals": cluster.load.deals,
        "exact": cluster.counts() == expected and not any(cluster.doubled().values()),
        "counts": cluster.counts(),
        "doubled": cluster.doubled(),
        "audit": report["exit"],
        "audit_counts": report["counts"],
        "events_per_second": round(events / (settled - began), 1),
        "events": events,
        "seconds_of_load": round(pushed - began, 1),
        "seconds_to_settle": round(settled - pushed, 1),
        "start_seconds": round(started, 1),
        "accepted_to_message": quantiles(cluster.load.waits(began, pushed)),
        "pushes_sent_again": cluster.load.refusals,
        "kills": [felt(kill, cluster.load, end) for kill, end in zip(kills, ends[: len(kills)], strict=True)],
        "memory_mib": memory(cluster.pids()),
        "idle": idle,
        "steady": steady,
        "disk": disk(cluster.folder, cluster.environment, events),
    }  # fmt: skip


def measured(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """What the log grows by and what the processors do in so many seconds, while nothing is killed."""
    log = KafkaLog(cluster.client)
    began, events, used = time.monotonic(), sum(log.ends(EVENTS.name).values()), cpu_seconds(cluster.pids())
    time.sleep(seconds)
    cpu, grown = cpu_seconds(cluster.pids()), sum(log.ends(EVENTS.name).values()) - events
    return {
        "seconds": round(time.monotonic() - began, 1),
        "records": grown,
        "cpu_seconds": {name: round(cpu[name] - used[name], 2) for name in sorted(cpu)},
    }


def _settle(cluster: Cluster) -> Mapping[str, int]:
    """Wait until all that was accepted is done; what is right then."""
    expected = cluster.expected()
    until(lambda: bool(cluster.load.errors) or _at_least(cluster, cluster.expected()), 300, f"all is done: {expected}")
    if cluster.load.errors:
        raise cluster.load.errors[0]
    return cluster.expected()


def _at_least(cluster: Cluster, expected: Mapping[str, int]) -> bool:
    return all(cluster.counts()[kind] >= number for kind, number in expected.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when all holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=3.0, help="deals a second")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quiet", action="store_true", help="kill nothing")
    parser.add_argument("--keep", action="store_true", help="keep the folder, with the logs of all programs")
    asked = parser.parse_args(arguments)
    # A path of a socket may have a hundred characters: the folder's name is short.
    folder = Path(tempfile.mkdtemp(prefix="hub-"))
    folder.chmod(0o755)
    cluster = Cluster(folder, asked.rate, asked.seed)
    figures: dict[str, Any] = {}
    try:
        figures = run(cluster, asked.minutes, asked.quiet)
    finally:
        cluster.stop()
        ended = [(name, code) for name, code, _ in cluster.copies.ended]
        sys.stderr.write(f"ended by themselves or killed: {ended}\n")
        if asked.keep or not figures:
            sys.stderr.write(f"logs: {folder}\n")
        else:
            shutil.rmtree(folder)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    figures |= {"brokers": len(NAMES), "workers": len(WORKERS), "doors": len(DOORS), "largest_mib": largest // 1024}
    print(orjson.dumps(figures).decode())
    return 0 if figures["exact"] and figures["audit"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
