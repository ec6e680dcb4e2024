"""`python -m tests.bench.restore [--cases N] [--rounds N]`: a worker that was killed reads its cases back, beside a Faust table.

After kill -9 it has nothing but its changelog. Both get the same 200,000 cases there, 1.2 kB each, on one broker, in groups
that are new, so that no one waits for a dead member. Seconds are each program's own, from the assignment of its partitions to
their state. A start with an empty changelog is taken off the CPU, and off the memory that is told per case. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from hub.engine.case import Case, to_json
from hub.engine.step import opened_by
from hub.log.event_log import Outgoing
from hub.log.kafka_log import KafkaLog
from hub.log.topics import ensure_topics
from hub.ops.embedded_kafka import BrokerPlan
from hub.processor import GROUP
from schemas.topics import PARTITIONS, STATE
from tests.bench import faust_table
from tests.bench.programs import cpu_seconds
from tests.bench.won2task import story
from tests.open_broker import OpenBroker

ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
NUMBER = 4_711_471
MOST_SECONDS = 600.0


@dataclass(frozen=True)
class Start:
    """One start: what it says its restore took, its CPU until then, and its size."""

    seconds: float
    cpu: float
    rss_mb: float


@dataclass(frozen=True)
class Side:
    """A program that restores: how to run it on a broker, what it says when it is done, and its changelog's records."""

    command: list[str]
    said: bytes
    group: str
    topic: str
    record: Callable[[bytes, bytes], tuple[bytes, bytes]]
    """Key and value, of a case's key and its state record."""


SIDES: Mapping[str, Side] = {
    "hub": Side(
        [sys.executable, "-m", "hub.programs.processor", "--home", str(ACME)],
        b"worker.state-read",
        GROUP,
        STATE.name,
        lambda k, v: (k, v),
    ),
    "faust": Side(
        [sys.executable, "-m", "tests.bench.faust_table", "worker", "-l", "warn", "--without-web"],
        faust_table.RECOVERED,
        faust_table.APP,
        faust_table.CHANGELOG,
        lambda key, value: (orjson.dumps(key.decode()), value),
    ),
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.restore", description=__doc__)
    parser.add_argument("--cases", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=SIDES)
    asked = parser.parse_args()
    names = [asked.only] if asked.only else list(SIDES)
    starts: dict[str, list[Start]] = {f"{name}{kind}": [] for name in names for kind in ("", "-empty")}
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as parent:
        broker = OpenBroker(BrokerPlan(Path(parent) / "kafka", port=0))
        try:
            bootstrap = broker.start()
            for number in range(asked.rounds):
                for name in names:
                    for kind, cases in (("-empty", 0), ("", asked.cases)):
                        folder = Path(parent) / f"{name}{kind}-{number}"
                        started = start(bootstrap, SIDES[name], cases, folder)
                        starts[f"{name}{kind}"].append(started)
                        said = f"{started.seconds:.1f} s, {started.cpu:.1f} s CPU, {started.rss_mb:.0f} MB"
                        print(f"round {number + 1} {name}{kind}: {said}", file=sys.stderr, flush=True)
        finally:
            broker.stop()
    print(orjson.dumps(summary(asked.cases, names, starts)).decode())
    return 0


def start(bootstrap: str, side: Side, cases: int, folder: Path) -> Start:
    """Fill its changelog, start it, wait until it says that it has read it, and kill it."""
    _fresh(bootstrap, side)
    fill(KafkaLog({"bootstrap.servers": bootstrap}), side, cases)
    folder.mkdir(parents=True)
    settings = {"HUB_KAFKA": bootstrap, "HUB_DATA": str(folder), "HUB_LANG": "en"}
    program = subprocess.Popen(
        side.command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    late = threading.Timer(MOST_SECONDS, program.kill)
    late.start()
    try:
        assert program.stdout is not None
        words = list(_until(program.stdout, side.said))
        assert words and side.said in words[-1], b"".join(words[-20:]).decode()
        told = words[-1][words[-1].index(b"{") :]
        return Start(float(orjson.loads(told)["seconds"]), cpu_seconds(program.pid), _rss_mb(program.pid))
    finally:
        late.cancel()
        program.send_signal(signal.SIGKILL)
        program.communicate()


def _until(lines: Any, said: bytes) -> Iterator[bytes]:
    for line in lines:
        yield line
        if said in line:
            return


def fill(log: KafkaLog, side: Side, cases: int) -> None:
    """Write the cases' states, as a worker left them behind."""
    key, value = state_of(NUMBER)
    old, writer, batch = b"%07d" % NUMBER, log.writer(), list[Outgoing]()
    for number in range(cases):
        new = b"%07d" % number
        batch.append(Outgoing(side.topic, *side.record(key.replace(old, new), value.replace(old, new))))
        if len(batch) == 10_000 or number == cases - 1:
            writer.append(batch, 120)
            batch = []
    writer.close()


def state_of(number: int) -> tuple[bytes, bytes]:
    """The state of a case after all events of its deal."""
    events = story(number)
    case: Case = opened_by(events[0])
    for event in events:
        case = case.remember(event).with_entity(event)
    return case.id.encode(), to_json(case, 123_456)


def _fresh(bootstrap: str, side: Side) -> None:
    """Every topic that it needs, and an empty changelog; a group that nobody remembers."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    there = set(admin.list_topics(timeout=20).topics)
    wanted = [name for name in (faust_table.EVENTS,) if name not in there]
    if side.topic in there:
        admin.delete_topics([side.topic], operation_timeout=30)[side.topic].result(60)
        _wait(lambda: side.topic not in admin.list_topics(timeout=20).topics)
    groups = {group.group_id for group in admin.list_consumer_groups().result(20).valid}
    if side.group in groups:
        _wait(lambda: _forgotten(admin, side.group))
    new = [NewTopic(name, PARTITIONS, 1, config={"cleanup.policy": "compact"}) for name in (side.topic, *wanted)]
    for made in admin.create_topics(new, operation_timeout=30).values():
        made.result(60)
    ensure_topics({"bootstrap.servers": bootstrap})


def _forgotten(admin: AdminClient, group: str) -> bool:
    """Deleted, once the broker has noticed that its killed member is gone."""
    return admin.delete_consumer_groups([group])[group].exception(20) is None


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "the broker does not settle"
        time.sleep(0.5)


def summary(cases: int, names: list[str], starts: Mapping[str, list[Start]]) -> dict[str, Any]:
    """What the restore alone took, and the ratios round by round."""
    alone = {
        name: [
            (full.seconds, max(full.cpu - empty.cpu, 0.01), (full.rss_mb - empty.rss_mb) * 1024)
            for full, empty in zip(starts[name], starts[f"{name}-empty"], strict=True)
        ]
        for name in names
    }
    told: dict[str, Any] = {
        "cases": cases,
        "restore_seconds": {name: round(statistics.median(each[0] for each in alone[name]), 2) for name in names},
        "restore_cpu_seconds": {name: round(statistics.median(each[1] for each in alone[name]), 2) for name in names},
        "memory_kb_per_case": {
            name: round(statistics.median(each[2] for each in alone[name]) / cases, 2) for name in names
        },
    }
    if len(names) > 1:
        pairs = list(zip(alone["hub"], alone["faust"], strict=True))
        told["times_as_fast_as_faust"] = [round(faust[0] / hub[0], 1) for hub, faust in pairs]
        told["faust_cpu_of_hub"] = [round(faust[1] / hub[1], 1) for hub, faust in pairs]
    return told


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
