"""`python -m tests.bench.forgotten [--cases N]`: state with its old cases forgotten, beside state that keeps all.

Won deals of acme's rules, each with its project and its tasks all completed, in one partition; then their state as another worker
restores it: bytes in the topic once it is compacted, memory, seconds. And what it takes to bring one back, without reading the log.
Nine tenths of them are old. CPU and memory only; the last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from datetime import timedelta

import orjson

from hub.engine.step import StepRules
from hub.home import Home
from hub.log.event_log import Outgoing, Record
from hub.log.memory_log import MemoryLog
from hub.processor.case_expiry import expiry_cutoff
from hub.processor.folding import fold_chunk
from hub.processor.forgotten_cases import refold
from hub.processor.source import Chunk
from hub.processor.state import PartitionState, catch_up
from schemas.envelope import Command, Event, derived_id
from schemas.topics import COMMANDS, EVENTS, STATE
from tests.bench.restore import ACME
from tests.events import event

CHUNK = 800
OLD, NEW = "2026-01-01T00:00:00.000000Z", "2026-11-20T00:00:00.000000Z"


def deal(number: int, rules: StepRules) -> list[Event]:
    """All that happens to a deal, as the executor and the systems tell it."""
    case = f"opportunity/crm/O-{number:06}"
    data = {
        "name": f"网关 {number:06}",
        "account": "华为",
        "amount": "880000",
        "currency": "CNY",
        "owner": "person/wang.fang",
    }
    told = [event("crm.opportunity.won", case, version="7", id=derived_id("won", str(number)), data=data)]
    state, at = PartitionState(0), 0
    while at < len(told):
        records = [Record(EVENTS.name, 0, at, case.encode(), told[at].to_json())]
        done = fold_chunk(Chunk(0, records, 0), state, rules, _no_reread)
        at += 1
        for sent in done.outputs:
            told += _after(sent, case)
    return told


def _after(sent: Outgoing, case: str) -> list[Event]:
    """What follows from an output: what was asked for is done, and a task is completed."""
    value = orjson.loads(sent.value or b"")
    if sent.topic != COMMANDS.name or value.get("record") not in (None, "event"):
        return []
    if value.get("record") == "event":
        return [Event.model_validate(value["event"])]
    asked = Command.model_validate(value)
    kind = {"project.create": "project", "task.create": "task"}.get(asked.type)
    id_ = derived_id("result", asked.id, "done")
    if kind is None:
        told = {"type": asked.type, "arguments": asked.arguments}
        return [
            event(
                "hub.command.done",
                f"command/{asked.instance}/{asked.id}",
                case=case,
                causationid=asked.id,
                id=id_,
                data=told,
            )
        ]
    ref = f"{kind}/{asked.instance}/{asked.id[:8]}"
    data = {name: value for name, value in asked.arguments.items() if isinstance(value, str)}
    made = event(f"work.{kind}.created", ref, case=case, causationid=asked.id, id=id_, data=data)
    over = event(f"work.{kind}.completed", ref, case=case, version="9", id=derived_id("over", asked.id), data={})
    return [made, over] if kind == "task" else [made]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.forgotten", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    count = parser.parse_args().cases
    rules = Home.load(ACME).rule_store().rules
    pattern = deal(0, rules)
    log, state = MemoryLog(1), PartitionState(0)
    written: dict[bytes, bytes] = {}
    for first in range(0, count, CHUNK):
        records = [
            record
            for number in range(first, min(first + CHUNK, count))
            for record in _records(log, pattern, number, count)
        ]
        done = fold_chunk(Chunk(0, records, 0), state, rules, _no_reread)
        written |= {each.key: each.value or b"" for each in done.states}
    told: dict[str, object] = {"cases": count, "events_each": len(pattern), "over": len(state.over.since)}
    told["kept"] = _restored(written)
    began = time.process_time()
    gone = state.forget(expiry_cutoff(state.clock, timedelta(days=180)), count, lambda *_: True)
    told["us_to_forget_one"] = round((time.process_time() - began) / max(1, len(state.forgotten)) * 1e6, 1)
    written |= {each.key: each.value or b"" for each in gone}
    told["forgotten"] = _restored({key: value for key, value in written.items() if value})
    told["ms_to_fold_one_again"] = _again(log, state, rules)
    print(orjson.dumps(told).decode())
    return 0


def _records(log: MemoryLog, pattern: list[Event], number: int, count: int) -> list[Record]:
    """The same deal under another name, at the log's end."""
    there, at = log.records[EVENTS.name, 0], (OLD if number < count * 0.9 else NEW)
    found = []
    for each in pattern:
        raw = each.model_copy(update={"recordedtime": at}).to_json().replace(b"O-000000", b"O-%06d" % number)
        found.append(Record(EVENTS.name, 0, len(there), f"opportunity/crm/O-{number:06}".encode(), raw))
        there.append(found[-1])
    return found


def _restored(written: dict[bytes, bytes]) -> dict[str, object]:
    """What it is to restore them: bytes, MB, seconds."""
    log = MemoryLog(1)
    log.records[STATE.name, 0] = [
        Record(STATE.name, 0, at, key, value) for at, (key, value) in enumerate(written.items())
    ]
    seconds = []
    for _ in range(3):
        states = {0: PartitionState(0)}
        gc.collect()
        began = time.process_time()
        catch_up(log, states)
        seconds.append(time.process_time() - began)
        size = sum(sys.getsizeof(raw) for raw in (*states[0].cases.values(), *states[0].forgotten.values()))
    return {
        "topic_mb": round(sum(len(key) + len(value) for key, value in written.items()) / 1e6, 2),
        "memory_mb": round(size / 1e6, 2),
        "seconds": round(statistics.median(seconds), 3),
    }


def _again(log: MemoryLog, state: PartitionState, rules: StepRules) -> float:
    costs, there = [], log.records[EVENTS.name, 0]
    for key in list(state.forgotten)[:200]:
        first, more = state.spans(key)
        began = time.process_time()
        refold(0, there[first : first + more + 1], lambda records: [(records, rules)], _no_reread)
        costs.append((time.process_time() - began) * 1000)
    return round(statistics.median(costs), 2)


def _no_reread(_offsets: object) -> list[bytes]:
    raise AssertionError("nothing is parked")


if __name__ == "__main__":
    sys.exit(main())
