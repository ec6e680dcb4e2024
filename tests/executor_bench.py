"""An executor on a ledger and a log of its own, with outside systems that misbehave as they are told."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hub.errors import RejectedError
from hub.executor import Executor
from hub.kit.connector import Connector, Effect, Idempotency, Instance, RateLimits
from hub.ledger import commands
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ledger.outbox import outbox
from hub.log.event_log import Outgoing
from hub.log.memory_log import MemoryLog
from hub.runtime.clock import Clock, SystemClock
from schemas.envelope import Command, Event, derived_id
from schemas.topics import COMMANDS

TYPES = frozenset({"project.create", "task.create", "task.update", "message.send", "finance.post"})
Trouble = Exception | Callable[[], object]


@dataclass
class FakeSystem:
    """The port `Sends`, with a memory of what it did: `effects` by command id is what tests count."""

    class_: Idempotency = Idempotency.KEY
    limits: RateLimits = field(default_factory=lambda: RateLimits(per_second=10_000, at_once=8, timeout=5, settle=0.05))
    command_types: frozenset[str] = TYPES
    effects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    sent: list[Command] = field(default_factory=list)
    sent_at: list[float] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    before: list[Trouble] = field(default_factory=list)
    """What goes wrong before the work is done, call by call."""
    after: list[Trouble] = field(default_factory=list)
    """What goes wrong once it is done."""
    finding: list[Trouble] = field(default_factory=list)
    refuse: Callable[[Command], Exception | None] = lambda _command: None
    seconds: float = 0.0
    answer: dict[Any, Any] | None = None
    answer_id: str | None = None
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    _now: int = 0

    def idempotency(self, type_: str) -> Idempotency:
        return self.class_

    def send(self, command: Command) -> Effect:
        with self.lock:
            self.sent.append(command)
            self.sent_at.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            return self._send(command)
        finally:
            with self.lock:
                self._now -= 1

    def _send(self, command: Command) -> Effect:
        self._go_wrong(self.before)
        refused = self.refuse(command)
        if refused is not None:
            raise refused
        time.sleep(self.seconds)
        with self.lock:
            if self.class_ is not Idempotency.KEY or command.id not in self.effects:
                self.effects[command.id] += 1
        self._go_wrong(self.after)
        return self._effect(command)

    def find(self, command: Command) -> Effect | None:
        self.looked.append(command.id)
        self._go_wrong(self.finding)
        with self.lock:
            return self._effect(command) if command.id in self.effects else None

    def _effect(self, command: Command) -> Effect:
        made = f"T-{command.id}" if self.answer_id is None else self.answer_id
        return Effect(made, self.answer or {"id": command.id})

    def _go_wrong(self, script: list[Trouble]) -> None:
        with self.lock:
            trouble = script.pop(0) if script else None
        if isinstance(trouble, Exception):
            raise trouble
        if trouble is not None:
            trouble()  # it may wait, and go on


@dataclass
class FakePeople:
    """Everyone has an account, except those in `missing`."""

    missing: set[str] = field(default_factory=set)

    def account(self, person: str, instance: str) -> str:
        if person in self.missing:
            raise RejectedError("HUB-E4006", instance=instance, reason=f"{person} has no account")
        return f"{person.partition('/')[2]}@{instance}"

    def person_of(self, instance: str, account: str) -> str | None:
        name, _, at = account.partition("@")
        return f"person/{name}" if at == instance else None


@dataclass
class Bench:
    """One ledger, one log, and as many executors as a test starts."""

    ledger: Ledger
    log: MemoryLog = field(default_factory=MemoryLog)
    systems: dict[str, FakeSystem] = field(default_factory=dict)
    real: dict[str, Connector] = field(default_factory=dict)
    """Connectors that need no system of their own."""
    people: FakePeople = field(default_factory=FakePeople)
    clock: Clock = field(default_factory=SystemClock)

    def system(self, name: str, **settings: Any) -> FakeSystem:
        """Connect a system."""
        self.systems[name] = FakeSystem(**settings)
        return self.systems[name]

    def executor(self, ledger: Ledger | None = None) -> Executor:
        """An executor that is not started."""
        return Executor(ledger or self.ledger, self.log, self.connectors(), self.people, self.clock)

    def connectors(self) -> dict[str, Connector]:
        """The systems, as the executor is given them."""
        return {**self.real, **{name: connector(name, system) for name, system in self.systems.items()}}

    @contextmanager
    def another(self) -> Iterator[Ledger]:
        """The same ledger, opened once more, as by another program."""
        opened = Ledger(self.ledger.engine.url.render_as_string(hide_password=False))
        try:
            yield opened
        finally:
            opened.close()

    @contextmanager
    def running(self, ledger: Ledger | None = None) -> Iterator[Executor]:
        """An executor at work."""
        executor = self.executor(ledger)
        executor.start()
        try:
            yield executor
        finally:
            executor.stop()

    def ask(self, *asked: Command) -> None:
        """Put commands on the log, as the processor does."""
        self.put(*[(command.case, command.to_json()) for command in asked])

    def put(self, *records: tuple[str, bytes]) -> None:
        """Put records on `hub.commands`."""
        self.log.writer().append([Outgoing(COMMANDS.name, key.encode(), value) for key, value in records])

    def rows(self) -> dict[str, AnyRow]:
        """Every command in the ledger."""
        with self.ledger.reading() as conn:
            return {row.id: row for row in conn.execute(commands.commands.select())}

    def row(self, command: Command) -> AnyRow:
        """One command in the ledger."""
        return self.rows()[command.id]

    def events(self, type_: str | None = None) -> list[Event]:
        """What the outbox holds, in order."""
        with self.ledger.reading() as conn:
            rows = conn.execute(outbox.select().order_by(outbox.c.id)).all()
        return [Event.from_json(row.body) for row in rows if type_ in (None, row.type)]

    def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for a condition; a test that waits in vain shows the ledger."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                states = [(r.id[:8], r.type, r.state, r.attempts, r.code, r.reason) for r in self.rows().values()]
                raise AssertionError(f"not in {seconds} s; commands: {states}")
            time.sleep(0.005)

    def until_states(self, wanted: str, asked: Sequence[Command], seconds: float = 20.0) -> None:
        """Wait until all of these commands are in one state."""
        ids = {command.id for command in asked}
        self.until(lambda: {k for k, row in self.rows().items() if row.state == wanted} >= ids, seconds)


def connector(name: str, system: FakeSystem, use: str = "fake") -> Connector:
    """A connector with one face."""
    return Connector(Instance(name, use, {}), sends=system)


def command(
    position: int = 0,
    case: str = "opportunity/crm/O-1",
    type_: str = "task.create",
    instance: str = "pm",
    **arguments: Any,
) -> Command:
    """A command as a rule makes it; the same case and position give the same id."""
    return Command(
        id=derived_id("test", case, str(position)),
        type=type_,
        instance=instance,
        case=case,
        time="2026-11-20T02:00:00.000000Z",
        causationid="event-1",
        subject=case,
        rule="won-deal",
        digest="d1",
        title={"zh": "赢单", "en": "won"},
        matched={"amount": "880000"},
        arguments=arguments or {"title": f"task {position}"},
        position=position,
    )
