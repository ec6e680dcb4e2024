"""An executor in a process of its own, for tests that kill it: `python -m tests.crashing_executor FOLDER LEDGER CLASS CASES EACH`.

Its outside system lives in a file, so that what was done outlives the process; it ends by itself once every command is done.
"""

from __future__ import annotations

import fcntl
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hub.executor import Executor, command_consumer, retry_policy
from hub.executor import executor as dispatcher
from hub.kit.connector import Connector, Effect, Idempotency, Instance, RateLimits
from hub.ledger import commands
from hub.ledger.ledger import Ledger
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.runtime.clock import SystemClock
from schemas.envelope import Command, promise
from schemas.topics import COMMANDS
from tests.executor_bench import TYPES, FakePeople, command

LIMITS = RateLimits(per_second=10_000, at_once=4, timeout=0.3, settle=0.05)
MARGIN = 0.3


@dataclass(frozen=True)
class SystemInAFile:
    """The port `Sends`. Each line of the file is an effect, written whole or not at all."""

    file: Path
    class_: Idempotency
    command_types: frozenset[str] = TYPES
    limits: RateLimits = LIMITS

    def idempotency(self, type_: str) -> Idempotency:
        return self.class_

    def send(self, command: Command) -> Effect:
        with self.file.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            if self.class_ is not Idempotency.KEY or command.id not in file.read().split():
                file.write(f"{command.id}\n")
        return Effect(f"T-{command.id}")

    def find(self, command: Command) -> Effect | None:
        return Effect(f"T-{command.id}") if command.id in self.file.read_text().split() else None


def asked(cases: int, each: int) -> list[Command]:
    """What is asked for: in every case a project, and tasks that rest on it."""
    found = []
    for n in range(cases):
        case = f"opportunity/crm/O-{n}"
        project = command(0, case, "project.create", name="交付")
        tasks = [command(k, case, title=f"task {k}", project=promise(project.id)) for k in range(1, each)]
        found += [project, *tasks]
    return found


def main(folder: Path, url: str, class_: Idempotency, cases: int, each: int) -> None:
    """Work until all is done."""
    (
        dispatcher.DEADLINE_MARGIN_S,
        retry_policy.FIRST_DELAY_S,
        command_consumer.LEASE_S,
        command_consumer.RENEW_INTERVAL_S,
    ) = MARGIN, 0.02, 0.5, 0.1
    log = MemoryLog()
    wanted = asked(cases, each)
    log.writer().append([Outgoing(COMMANDS.name, one.case.encode(), one.to_json()) for one in wanted])
    ledger = Ledger(url)
    (folder / "effects").touch()
    pm = Connector(Instance("pm", "fake", {}), sends=SystemInAFile(folder / "effects", class_))
    executor = Executor(ledger, log, {"pm": pm}, FakePeople(), SystemClock())
    executor.start()
    while not _all_done(ledger, len(wanted)):
        if not executor.healthy():
            sys.exit(f"unhealthy: {executor.failed}")
        time.sleep(0.02)
    executor.stop()


def _all_done(ledger: Ledger, wanted: int) -> bool:
    with ledger.reading() as conn:
        return commands.states(conn).get("DONE", 0) == wanted


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Idempotency[sys.argv[3]], int(sys.argv[4]), int(sys.argv[5]))
