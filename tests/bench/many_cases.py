"""`python -m tests.bench.many_cases [--cases N] [--turns N]`: what an event costs a worker that holds 10⁶ cases, and one with 10⁴.

Both states lie in this process, packed as after a restore, and are folded in turn with acme's rules, by chunks of one partition in
which every event is another case's: the larger worker meets cases that were not touched lately, which is the worst there is. CPU
only, since that is what the size can change. `memory_mb` is what filling the larger one added. The last line is JSON.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from hub.engine.step import StepRules
from hub.home import Home
from hub.log.event_log import Record
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState
from hub.runtime.program import tune_gc
from schemas.topics import EVENTS, PARTITIONS, STATE
from tests.bench.restore import ACME, NUMBER, state_of
from tests.bench.won2task import story

FEW, CHUNK = 10_000, 800


@dataclass
class Worker:
    """What one holds: partition p has the cases whose number leaves p when divided."""

    cases: int
    states: list[PartitionState] = field(default_factory=list)
    turn: int = 0

    def __post_init__(self) -> None:
        self.states = [PartitionState(partition) for partition in range(PARTITIONS)]
        for state in self.states:
            state.take(_left_behind(range(state.partition, self.cases, PARTITIONS)))

    def fold(self, rules: StepRules, chosen: random.Random) -> float:
        """µs of CPU an event, of the next chunk."""
        self.turn += 1
        state = self.states[self.turn % PARTITIONS]
        numbers = chosen.sample(range(state.partition, self.cases, PARTITIONS), CHUNK)
        records = list(_news(numbers, 1_000_000 + self.turn * CHUNK))
        began = time.process_time()
        folding = fold_chunk(Chunk(state.partition, records, records[-1].offset + 1), state, rules, _no_reread)
        spent = time.process_time() - began
        assert (folding.applied, folding.repeated, folding.failed) == (CHUNK, 0, 0)
        return spent / CHUNK * 1e6


def _left_behind(numbers: Iterable[int]) -> Iterable[Record]:
    key, value = state_of(NUMBER)
    old = b"%07d" % NUMBER
    for at, number in enumerate(numbers):
        new = b"%07d" % number
        yield Record(STATE.name, 0, at, key.replace(old, new), value.replace(old, new))


def _news(numbers: Iterable[int], first: int) -> Iterable[Record]:
    """A word about each of these deals, later than all before."""
    told = story(NUMBER)[-1].model_copy(update={"sequence": "<sequence>", "subjectversion": "99"})
    key, value, old = told.case.encode(), told.to_json(), b"%07d" % NUMBER
    for offset, number in enumerate(numbers, first):
        new = b"%07d" % number
        body = value.replace(old, new).replace(b"<sequence>", b"%d" % (10**12 + offset))
        yield Record(EVENTS.name, 0, offset, key.replace(old, new), body)


def _no_reread(_offsets: object) -> list[bytes]:
    raise AssertionError("nothing is parked")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.many_cases", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=24)
    asked = parser.parse_args()
    rules = Home.load(ACME).rule_store().rules
    few, before = Worker(FEW), _rss_mb()
    many = Worker(asked.cases)
    memory = _rss_mb() - before
    tune_gc()  # as the worker does
    costs = [
        (few.fold(rules, random.Random(turn)), many.fold(rules, random.Random(turn))) for turn in range(asked.turns)
    ]
    told = {
        "cases": asked.cases,
        "memory_mb": round(memory),
        "kb_per_case": round(memory * 1024 / asked.cases, 2),
        "cpu_us_per_event": {
            str(FEW): round(statistics.median(each[0] for each in costs), 1),
            str(asked.cases): round(statistics.median(each[1] for each in costs), 1),
        },
        "many_of_few": round(statistics.median(each[1] / each[0] for each in costs), 2),
    }
    print(orjson.dumps(told).decode())
    return 0


def _rss_mb() -> float:
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main())
