"""`python -m tests.bench.large_case [--objects N] [--turns N]`: an event of a case of 100,000 objects, beside one of ten.

Both lie in this process, packed as after a restore, and are folded in turn with acme's rules. A chunk has news of as many tasks as
it has events: in one state all of one case, in the other each of another case. `turns` of one event a chunk are told apart:
so it is where little is going on. CPU only, and the bytes of the state's records. The last line is JSON.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from hub.engine.step import StepRules
from hub.home import Home
from hub.log.event_log import Record
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState
from hub.runtime.program import tune_gc
from schemas.envelope import Event, derived_id
from schemas.topics import EVENTS, STATE
from tests.bench.restore import ACME
from tests.events import event

TEN, CHUNK = 10, 800


@dataclass
class Worker:
    """A state whose cases have so many objects each; all together as many as the large one."""

    each: int
    objects: int
    rules: StepRules
    state: PartitionState = field(default_factory=lambda: PartitionState(0))
    offset: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        written = list[Record]()
        for first in range(0, self.objects, CHUNK):
            records = self._records(range(first, min(first + CHUNK, self.objects)), "created")
            done = fold_chunk(Chunk(0, records, 0), self.state, self.rules, _no_reread)
            written += [Record(STATE.name, 0, at, out.key, out.value) for at, out in enumerate(done.states)]
        self.state = PartitionState(0)
        self.state.take(written)

    def fold(self, numbers: list[int]) -> float:
        """µs of CPU an event, for news of these objects in one chunk."""
        records = self._records(numbers, "started")
        began = time.process_time()
        done = fold_chunk(Chunk(0, records, 0), self.state, self.rules, _no_reread)
        spent = time.process_time() - began
        assert (done.applied, done.failed) == (len(numbers), 0)
        self.bytes += sum(len(out.key) + len(out.value or b"") for out in done.states)
        return spent / len(numbers) * 1e6

    def _records(self, numbers: range | list[int], name: str) -> list[Record]:
        return list(self._made(numbers, name))

    def _made(self, numbers: range | list[int], name: str) -> Iterator[Record]:
        for number in numbers:
            self.offset += 1
            told = self._news(number, name)
            yield Record(EVENTS.name, 0, self.offset, told.case.encode(), told.to_json())

    def _news(self, number: int, name: str) -> Event:
        case = f"project/pm/P{number // self.each:06}"
        data = {"title": f"核对第 {number:06} 批到货并登记入库", "assignee": "person/li.lei", "due": "2026-12-01"}
        id_, at = derived_id("bench", str(self.offset)), str(self.offset)
        return event(f"work.task.{name}", f"task/pm/{number:06}", case=case, id=id_, version=at, data=data)


def _no_reread(_offsets: object) -> list[bytes]:
    raise AssertionError("nothing is parked")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.large_case", description=__doc__)
    parser.add_argument("--objects", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=24)
    asked = parser.parse_args()
    rules = Home.load(ACME).rule_store().rules
    workers = {"ten": Worker(TEN, asked.objects, rules), "large": Worker(asked.objects, asked.objects, rules)}
    tune_gc()  # as the worker does
    told: dict[str, object] = {"objects": asked.objects}
    for size, turns in ((CHUNK, asked.turns), (1, asked.turns * 20)):
        costs = {name: list[float]() for name in workers}
        for worker in workers.values():
            worker.bytes = 0
        for turn in range(turns):
            # Each of another case, where there are several.
            firsts = random.Random(turn).sample(range(asked.objects // TEN), size)
            for name, worker in workers.items():
                costs[name].append(worker.fold([first * TEN for first in firsts]))
        told[f"chunk_of_{size}"] = {
            "cpu_us_per_event": {name: round(statistics.median(cost), 1) for name, cost in costs.items()},
            "bytes_per_event": {name: round(worker.bytes / turns / size) for name, worker in workers.items()},
            "cpu_large_of_ten": round(statistics.median(b / a for a, b in zip(*costs.values(), strict=True)), 2),
        }
    print(orjson.dumps(told).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
