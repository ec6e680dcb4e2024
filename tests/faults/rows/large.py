"""One project gets thousands of tasks while other deals are won, and the worker is killed amid them: F44.

A fault is such a load of tasks. Nobody restarts but who was killed, every task is there once, and no other deal waits.
"""

from __future__ import annotations

import functools
import random
from datetime import UTC, datetime

from hub.ledger import outbox
from hub.ledger.ledger import Ledger
from hub.log.event_log import read_to_end
from hub.log.kafka_log import KafkaLog
from hub.processor.state import PART_SEPARATOR
from schemas.envelope import format_time
from schemas.topics import STATE
from tests.acceptance.running import until
from tests.events import event
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

CASE = "project/pm/LARGE"
TASKS, AT_ONCE = 400, 100
PLACES = ("worker.before-fold", "worker.outputs-delivered", "worker.states-delivered")


def many_tasks(stage: Stage, chosen: random.Random) -> None:
    """Take tasks in as a connector does, kill the worker on its way through them, and wait until a deal is done behind them."""
    now, first = format_time(datetime.now(UTC)), stage.faults * TASKS
    ledger = Ledger(stage.ledger)
    try:
        for at in range(first, first + TASKS, AT_ONCE):
            told = [
                event(
                    "work.task.created", f"task/pm/L-{number}", case=CASE, version="1", time=now, recordedtime=now,
                    data={"title": f"入库核对 {number}"},
                )
                for number in range(at, at + AT_ONCE)
            ]  # fmt: skip
            ledger.writer.run(functools.partial(outbox.record, events=told, instance="pm"))
            if at == first:
                stage.fail_at(chosen.choice(PLACES), chosen.randint(1, 3), seconds=10.0)
    finally:
        ledger.close()
    stage.faults = first // TASKS + 1
    deal = stage.load.push()
    until(lambda: stage.has_project(deal), LONGEST, "a deal behind the tasks is done")


def all_there(stage: Stage) -> list[str]:
    """The records of the project's tasks, each small."""
    wanted = stage.faults * TASKS
    log = KafkaLog(stage.hub.client)
    try:
        until(lambda: len(_parts(log)) >= wanted - AT_ONCE, LONGEST, "the tasks are kept")
    except AssertionError as error:
        return [str(error)]
    sizes = _parts(log)
    wrong = [] if len(sizes) <= wanted else [f"{len(sizes)} tasks where {wanted} were told"]
    return wrong + ([f"a record of {max(sizes.values())} bytes"] if max(sizes.values()) > 16 * 1024 else [])


def _parts(log: KafkaLog) -> dict[bytes, int]:
    found = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            if record.key is not None and record.key.startswith(CASE.encode() + PART_SEPARATOR):
                found[record.key] = len(record.value or b"")
    return found


ROWS = [
    Row(
        "F44",
        "thousands of tasks in one project, and kills amid them",
        2,
        20,
        many_tasks,
        per_second=5.0,
        checks=all_there,
        any_store=True,
    ),
]
