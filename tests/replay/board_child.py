"""Runners in processes of their own, each killed after so many statements, the last not: `board_child URL LOG STATEMENTS…`."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event

from hub.log.event_log import Record
from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.runner import Runner
from hub.projector.store import BoardStore
from schemas.topics import EVENTS

SMALL = 7
"""Records in one transaction, so that there are many."""


def save(log: MemoryLog, file: Path) -> None:
    """Write a log down."""
    lines = [
        [record.partition, base64.b64encode(record.key or b"").decode(), base64.b64encode(record.value or b"").decode()]
        for records in log.records.values()
        for record in records
    ]
    file.write_text("\n".join(map(json.dumps, lines)), "ascii")


def load(file: Path) -> MemoryLog:
    """Read it back."""
    log = MemoryLog()
    for partition, key, value in map(json.loads, file.read_text("ascii").splitlines()):
        there = log.records[EVENTS.name, partition]
        record = Record(EVENTS.name, partition, len(there), base64.b64decode(key), base64.b64decode(value))
        there.append(record)
    return log


def catch_up(url: str, file: str, statements: int | None) -> None:
    """Catch every board up, or die by SIGKILL after so many statements."""
    store, left = BoardStore(url), [statements]

    @event.listens_for(store.engine, "after_cursor_execute")
    def count(*_: Any) -> None:
        if left[0] is not None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    store.prepare(registry.all_projections().values())
    for projection in registry.all_projections().values():
        Runner(load(Path(file)), store, projection).catch_up(SMALL)
    store.close()


def in_child(url: str, file: str, statements: int | None) -> int:
    """Do so in a process forked from this one; how it ended, as subprocess tells it."""
    child = os.fork()
    if child == 0:
        catch_up(url, file, statements)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    kills = [int(statements) for statements in sys.argv[3:]]
    print(*(in_child(sys.argv[1], sys.argv[2], statements) for statements in (*kills, None)))
