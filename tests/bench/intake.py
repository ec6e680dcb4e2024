"""`python -m tests.bench.intake [--store sqlite|postgresql] [--rounds N]`: pushes accepted durably a second by one program.

The whole connectors program runs as its users run it: signatures are verified, facts mapped by CEL, duplicates found, events
committed to the ledger (SQLite with synchronous=FULL, PostgreSQL with fsync) and relayed to an embedded broker. Beside it, in
turns, the least that accepts a push durably: `tests.bench.bare_intake`. CPU is the program's until all is in the log, per push;
that of PostgreSQL's processes is not counted. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.bench.programs import cpu_seconds
from tests.broker.connectors_stage import Stage
from tests.broker.program import Program
from tests.kafka_fixture import embedded
from tests.ports import free_port
from tests.postgres_fixture import NewDatabase
from tests.postgres_server import PostgresServer

CONNECTIONS = 64
WARM_UP = 500
HUB, BARE = "hub", "bare"


@dataclass(frozen=True)
class Result:
    """Of one round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def main() -> int:
    """Measure; 0 when every push was accepted, is in the ledger once, and has reached the log."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.intake", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pushes", type=int, default=10_000, help="in one round")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        broker = embedded(Path(name) / "kafka")
        try:
            with _databases(asked.store, Path(name)) as new:
                results = _race(broker.start(), new, Path(name), asked.rounds, asked.pushes)
        finally:
            broker.stop()
    print(_table(results))
    print(orjson.dumps({"store": asked.store, **_summary(results)}).decode())
    return 0


@contextlib.contextmanager
def _databases(store: str, folder: Path) -> Iterator[NewDatabase | None]:
    if store == "sqlite":
        yield None
        return
    (folder / "postgres").mkdir()
    server = PostgresServer(folder / "postgres", durable=True)
    server.start()
    try:
        yield server.database
    finally:
        server.stop()


def _race(
    kafka: str, new: NewDatabase | None, folder: Path, rounds: int, pushes: int
) -> Mapping[str, Sequence[Result]]:
    """One, the other, one, the other, …"""
    results: dict[str, list[Result]] = {HUB: [], BARE: []}
    for number in range(rounds):
        for name, run in ((HUB, _hub), (BARE, _bare)):
            place = folder / f"{name}-{number}"
            place.mkdir()
            found = run(kafka, new() if new else "sqlite", place, pushes)
            results[name].append(found)
            said = f"{found.per_second:,.0f} accepted/s, {found.cpu_us:.0f} µs CPU a push, p50 {found.p50_ms:.0f} ms"
            print(f"round {number + 1} {name}: {said}", file=sys.stderr, flush=True)
    return results


def _hub(kafka: str, store: str, folder: Path, pushes: int) -> Result:
    stage = Stage.anew(folder / "home", kafka, store)
    try:
        program = stage.start()
        _push(stage.port, WARM_UP, 0)
        stage.drained()
        before = cpu_seconds(program.pid)
        told = _push(stage.port, pushes, WARM_UP)
        stage.drained(120.0)
        used = cpu_seconds(program.pid) - before
        assert stage.counts() == {"accepted": WARM_UP + pushes, "held": 0, "unpublished": 0}
    finally:
        stage.stop_all()
    return Result(told["per_second"], told["p50_ms"], told["p99_ms"], used / pushes * 1e6)


def _bare(_kafka: str, store: str, folder: Path, pushes: int) -> Result:
    url, port = f"sqlite:///{folder / 'pushes.sqlite'}" if store == "sqlite" else store, free_port()
    program = Program([sys.executable, "-m", "tests.bench.bare_intake", url, str(port)])
    try:
        program.wait_for("ready")
        _push(port, WARM_UP, 0)
        before = cpu_seconds(program.pid)
        told = _push(port, pushes, WARM_UP)
        used = cpu_seconds(program.pid) - before
    finally:
        program.close()
    return Result(told["per_second"], told["p50_ms"], told["p99_ms"], used / pushes * 1e6)


def _push(port: int, many: int, first: int) -> Mapping[str, float]:
    """Push from a process of its own; raises unless all were accepted."""
    command = [sys.executable, "-m", "tests.bench.pushers", str(port), str(first), str(many), str(CONNECTIONS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pushers:
        assert pushers.stdin is not None and pushers.stdout is not None
        assert pushers.stdout.readline() == b"signed\n"
        time.sleep(0.5)  # the machine comes to rest
        pushers.stdin.write(b"\n")
        pushers.stdin.flush()
        told: dict[str, float] = orjson.loads(pushers.stdout.read())
    assert pushers.returncode == 0
    return told


def _table(results: Mapping[str, Sequence[Result]]) -> str:
    lines = ["      accepted/s min / median / max   µs CPU a push   p50 / p99 ms"]
    for name, found in results.items():
        rates = " / ".join(f"{rate:,.0f}" for rate in _spread([one.per_second for one in found]))
        cpu, p50, p99 = (statistics.median(getattr(one, at) for one in found) for at in ("cpu_us", "p50_ms", "p99_ms"))
        lines.append(f"{name:<5} {rates:<31} {cpu:<15.0f} {p50:.0f} / {p99:.0f}")
    return "\n".join([*lines, f"hub ÷ bare: {' / '.join(f'{ratio:.2f}' for ratio in _spread(_ratios(results)))}"])


def _summary(results: Mapping[str, Sequence[Result]]) -> dict[str, object]:
    told = {name: [vars(one) for one in found] for name, found in results.items()}
    return {**told, "hub_to_bare": [round(ratio, 3) for ratio in _ratios(results)]}


def _ratios(results: Mapping[str, Sequence[Result]]) -> list[float]:
    return [hub.per_second / bare.per_second for hub, bare in zip(results[HUB], results[BARE], strict=True)]


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)


if __name__ == "__main__":
    sys.exit(main())
