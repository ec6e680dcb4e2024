"""`python -m tests.bench.boards [STORE …] [--rounds N] [--rows N]`: how fast changed rows get into a large board.

A board of 10⁶ cards in PostgreSQL, which flushes as in production, and one of 10⁵ in SQLite take batches of random cards.
`commit` is what the runner does with a batch that is folded: rows with position and fence; `hand` upserts the same rows and a
position by the driver's own `executemany`; `fold` is the runner's whole turn on a batch of events: read and check them, look
their rows up, fold, commit. In turn, so that each had the same mood of the machine. CPU is this program's and the server's; where
others work on the machine it is the steadier figure. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from hub.log.memory_log import MemoryLog
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.runner import BoardLease, Runner
from hub.projector.store import Batch, BoardStore
from projections.tasks.fold import PROJECTION
from tests.bench.cards import fill, records_of, rows_of
from tests.bench.hand_written import Write, writer
from tests.postgres_server import PostgresServer

ROWS = {"postgresql": 1_000_000, "sqlite": 100_000}
BATCH, BATCHES = 2000, 10
"""Rows in a transaction, as the runner takes them under load; transactions in a measurement."""


@dataclass
class Stage:
    """A full board, and who writes it."""

    store: BoardStore
    rows: int
    runner: Runner = field(init=False)
    lease: BoardLease = field(init=False)
    write: Write = field(init=False)
    server: PostgresServer | None = None
    chosen: random.Random = field(default_factory=lambda: random.Random(5))

    def __post_init__(self) -> None:
        self.store.prepare([PROJECTION])
        fill(self.store, self.rows)
        self.runner = Runner(MemoryLog(), self.store, PROJECTION)
        lease = self.runner.try_claim()
        assert lease is not None
        self.lease = lease
        self.write = writer(self.store.engine.url, PROJECTION.table)

    def batch(self) -> list[int]:
        """Some cards."""
        return self.chosen.sample(range(self.rows), BATCH)


@contextmanager
def stage(name: str, rows: int) -> Iterator[Stage]:
    """A full board in a store of its own."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as parent:
        folder = Path(parent) / "a" / "b"  # what lies above is opened to the server's user
        folder.mkdir(parents=True)
        server = PostgresServer(folder, durable=True) if name == "postgresql" else None
        if server is not None:
            server.start()
        store = BoardStore(server.database() if server is not None else f"sqlite:///{folder}/boards.sqlite")
        try:
            yield Stage(store, rows, server=server)
        finally:
            store.close()
            if server is not None:
                server.stop()


class Cost(NamedTuple):
    """What a row took: seconds by the clock, and of CPU."""

    seconds: float
    cpu: float


def by_commit(board: Stage) -> Cost:
    """Rows and position by the product's store."""
    batches = [_changes(board.batch()) for _ in range(BATCHES)]
    places = {0: FoldPosition(board.lease.places[0].next_offset)}
    write = partial(board.store.commit, PROJECTION.name, board.lease.claim)
    return measured(board, lambda: [write(Batch(places, {PROJECTION.table: changes})) for changes in batches])


def _changes(numbers: list[int]) -> dict[str, RowChange]:
    before, after = rows_of(numbers), rows_of(numbers)
    return {key: RowChange(before[key], row) for key, row in after.items()}


def by_hand(board: Stage) -> Cost:
    """As much by the driver."""
    batches = [rows_of(board.batch()) for _ in range(BATCHES)]
    return measured(board, lambda: deque(map(board.write, batches)))


def by_fold(board: Stage) -> Cost:
    """Whole turns of the runner."""
    first = board.lease.places[0].next_offset
    batches = [records_of(board.batch(), first + at * BATCH) for at in range(BATCHES)]
    return measured(board, lambda: [board.runner.fold(board.lease, records) for records in batches])


def measured(board: Stage, work: Callable[[], object]) -> Cost:
    """The cost of a row, when `work` writes all batches."""
    began, cpu = time.perf_counter(), _cpu(board)
    work()
    rows = BATCH * BATCHES
    return Cost((time.perf_counter() - began) / rows, (_cpu(board) - cpu) / rows)


def _cpu(board: Stage) -> float:
    return time.process_time() + (0.0 if board.server is None else cpu_seconds(board.server))


def cpu_seconds(server: PostgresServer) -> float:
    """Of all processes of a server, and of those that have ended."""
    pid = server.pid()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in (str(pid), *children)]
    return sum(int(stat[at]) for stat in stats for at in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


WAYS: Mapping[str, Callable[[Stage], Cost]] = {"commit": by_commit, "hand": by_hand, "fold": by_fold}


def race(board: Stage, rounds: int) -> dict[str, list[Cost]]:
    """What a row costs, round by round."""
    found: dict[str, list[Cost]] = {name: [] for name in WAYS}
    for number in range(rounds):
        for name, way in WAYS.items():
            cost = way(board)
            found[name].append(cost)
            said = f"{1 / cost.seconds:,.0f} rows/s, {cost.cpu * 1e6:.0f} µs CPU a row"
            print(f"round {number + 1} {name}: {said}", file=sys.stderr, flush=True)
    return found


def summary(board: Stage, found: Mapping[str, list[Cost]]) -> dict[str, Any]:
    """Medians, and ratios round by round."""
    rates = {name: round(statistics.median(1 / cost.seconds for cost in costs)) for name, costs in found.items()}
    cpu = {name: round(statistics.median(cost.cpu for cost in costs) * 1e6, 1) for name, costs in found.items()}
    pairs = list(zip(found["commit"], found["hand"], strict=True))
    return {
        "rows": board.rows,
        "rows_per_second": rates,
        "cpu_us_per_row": cpu,
        "commit_times_hand": [round(hand.seconds / ours.seconds, 2) for ours, hand in pairs],
        "commit_cpu_of_hand": [round(ours.cpu / hand.cpu, 2) for ours, hand in pairs],
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.boards", description=__doc__)
    parser.add_argument("stores", nargs="*", default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="instead of a million in PostgreSQL and a hundred thousand in SQLite")
    asked = parser.parse_args()
    told = {}
    for name in asked.stores:
        with stage(name, asked.rows or ROWS[name]) as board:
            told[name] = summary(board, race(board, asked.rounds))
    print(orjson.dumps(told).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
