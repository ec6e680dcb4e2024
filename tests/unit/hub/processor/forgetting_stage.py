"""A partition whose worker forgets: histories of a few cases, and what came of them. Faust's part is played here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import orjson

from hub.engine.case import Case
from hub.log.event_log import Outgoing, Record, records_at
from hub.log.memory_log import MemoryLog, MemoryWriter
from hub.processor.app import Processor
from hub.processor.forgotten_cases import refold, reread_records
from hub.processor.rules_in_force import FixedRules
from hub.processor.source import Chunk
from hub.processor.state import PART_SEPARATOR, POSITION_KEY, PartitionState, catch_up
from schemas.decoding import AnyEvent
from schemas.envelope import Command, Event, derived_id, format_time, promise
from schemas.topics import COMMANDS, EVENTS, STATE
from tests.events import Decisions, command, event, result
from tests.unit.hub.processor.rule_stage import Inline, done
from tests.unit.hub.processor.test_large_cases import whole

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DEALS = ("opportunity/crm/O-1", "opportunity/crm/O-2", "opportunity/crm/O-3")


class Rules:
    """A won deal gets a project with two tasks, a complaint a timer, a finished task a message; each once in a stage."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        if event.data.get("bad"):
            raise ValueError("bad")
        if "test" in case.entities[event.subject].fired.get(case.entities[event.subject].stage or "", ()):
            return Decisions()
        match event.type:
            case "crm.opportunity.won":
                project = command(event, "project.create", 0, occurrence, name="交付")
                of_it = promise(project.id)
                tasks = [command(event, "task.create", n, occurrence, title=f"T{n}", project=of_it) for n in (1, 2)]
                return Decisions((project, *tasks), fired=("test",))
            case "work.task.completed":
                return Decisions((command(event, "message.send", 0, occurrence, text="done"),), fired=("test",))
            case "crm.opportunity.changed":
                return Decisions((command(event, "timer.set", 0, occurrence, name="t"),))
        return Decisions()


class CrashError(Exception):
    """The worker is dead."""


@dataclass
class Dying(MemoryWriter):
    """Appends so many records more, and then the worker dies, perhaps amid what it appends."""

    left: list[int] = field(default_factory=lambda: [10**9])

    def append(self, records: Sequence[Outgoing], timeout: float = 30.0) -> None:
        there = records[: self.left[0]]
        self.left[0] -= len(there)
        super().append(there, timeout)
        if len(there) < len(records):
            raise CrashError


@dataclass
class Partition:
    """The log of one partition, and the worker that has it."""

    log: MemoryLog = field(default_factory=lambda: MemoryLog(1))
    forgets: timedelta | None = None
    committed: int = 0
    left: list[int] = field(default_factory=lambda: [10**9])
    processor: Processor = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A worker takes the partition over."""
        writer = Dying(self.log, self.left)
        self.processor = Processor(self.log, FixedRules(Rules()), writer, forgets=self.forgets, threads=Inline())
        self.processor.states = {0: PartitionState(0)}
        done(self.processor._restore(self.processor.states))

    @property
    def state(self) -> PartitionState:
        return self.processor.states[0]

    def append(self, *events: Event | Record) -> None:
        there = [
            Outgoing(EVENTS.name, each.key or b"", each.value)
            if isinstance(each, Record)
            else Outgoing(EVENTS.name, each.case.encode(), each.to_json())
            for each in events
        ]
        self.log.writer().append(there)

    def fold(self, sizes: Callable[[], int] = lambda: 10**6, commits: Callable[[], bool] = lambda: True) -> None:
        """All that has come, in chunks of these sizes; a worker that dies is followed by another."""
        at = self.committed
        while records := self.log.records[EVENTS.name, 0][at : at + sizes()]:
            chunk = Chunk(0, records, records[-1].offset + 1)
            with unguarded(), contextlib.suppress(CrashError):
                done(self.processor.run(chunk))
            if chunk.finished:
                at = chunk.next_offset
                self.committed = at if commits() else self.committed
            else:
                self.left[0] = 10**9
                self.start()
                at = self.committed

    def sent(self) -> list[tuple[str, bytes | None]]:
        """All that was ever said, but for states, in the order of the log."""
        found = [rs for (topic, _), rs in sorted(self.log.records.items()) if topic not in (EVENTS.name, STATE.name)]
        return [(record.topic, record.value) for records in found for record in records]

    def commands(self) -> list[Command]:
        values = [record.value or b"" for record in self.log.records[COMMANDS.name, 0]]
        return [Command.from_json(value) for value in values if b'"record":' not in value]

    def kept(self) -> PartitionState:
        """What another worker would restore."""
        states = {0: PartitionState(0)}
        catch_up(self.log, states)
        return states[0]

    def cases(self) -> dict[bytes, Case | None]:
        """Every case as it is, or would be were there news of it."""
        state = self.kept()
        found = {key: whole(state.get(key)) for key in state.cases if PART_SEPARATOR not in key and key != POSITION_KEY}
        for key in state.forgotten:
            records = reread_records(self.log, 0, {key: state.spans(key)})
            back = refold(0, records, lambda rs: [(rs, Rules())], self._reread)
            assert key not in found
            assert back.reflects(key) == state.reflects(key)
            found[key] = whole(back.get(key))
        return found

    def _reread(self, offsets: Sequence[int]) -> list[bytes]:
        return records_at(self.log, EVENTS.name, 0, offsets)


@contextlib.contextmanager
def unguarded() -> Iterator[None]:
    """What would end the process is raised."""

    @contextlib.contextmanager
    def nothing(_chunk: Any) -> Iterator[None]:
        yield

    with patch("hub.processor.app.guard", nothing):
        yield


KINDS = (
    *("won", "won", "lost", "reopened", "changed", "deleted"),
    *("result", "result", "result", "done", "done", "reopen", "cancel", "fired", "relay"),
    *("bad", "retry", "discard", "mend", "noise", "ignored", "again", "older"),
    *("finish", "finish", "finish", "finish"),
)


@dataclass
class Teller:
    """Makes events of moves, as the systems and the executor would: what was asked for decides what they can tell."""

    partition: Partition
    days: float = 0.0
    count: int = 0
    told: list[Event] = field(default_factory=list)

    def tell(self, deal: int, kind: str, days: float) -> None:
        """One move; `days` after the last."""
        if kind == "finish":
            self._finish(deal, days)
            return
        self.days += days
        self.count += 1
        event_ = self._event(DEALS[deal], kind, deal)
        if event_ is not None:
            at = format_time(BEGAN + timedelta(days=self.days))
            event_ = event_ if kind == "again" else event_.model_copy(update={"recordedtime": at})
            self.told.append(event_)
            self.partition.append(event_)

    def _finish(self, deal: int, days: float) -> None:
        """Whatever is parked is discarded, whatever was asked for is done, and the deal's work comes to its end."""
        for _ in range(1 + len(self._waiting(DEALS[deal]))):
            self.tell(deal, "discard", days)
        for kind in (
            *["result"] * 4,
            "fired",
            "fired",
            "lost",
            "result",
            "done",
            "done",
            "done",
            *["result"] * 3,
            "relay",
        ):
            self.tell(deal, kind, 0)

    def _waiting(self, deal: str) -> list[str]:
        state = self.partition.state
        self.partition.fold()
        case = state.get(deal.encode())
        return [entry.event for entry in case.waiting()] if case is not None else []

    def _event(self, deal: str, kind: str, number: int) -> Event | None:
        n, id_ = self.count, derived_id("move", str(self.count))
        match kind:
            case "won" | "lost" | "reopened" | "changed":
                return event(f"crm.opportunity.{kind}", deal, version=f"{n}", id=id_)
            case "deleted":
                return event("crm.opportunity.deleted", deal, version=f"{n}", id=id_, data={})
            case "older":
                return event("crm.opportunity.lost", deal, version="1", id=id_)
            case "result":
                return self._result(deal)
            case "done" | "reopen" | "cancel":
                name = {"done": "completed", "reopen": "reopened", "cancel": "cancelled"}[kind]
                mine = [e.subject for e in self.told if e.type == "work.task.created" and e.case == deal]
                ref = mine[n % len(mine)] if mine else f"task/pm/{number}"
                return event(f"work.task.{name}", ref, case=deal, version=f"{n}", id=id_, data={"title": "T"})
            case "fired":
                due = [c for c in self.partition.commands() if c.type == "timer.set" and c.case == deal]
                timer = due[n % len(due)].id if due else None
                ref = f"timer/hub/{timer}"
                return event("hub.timer.fired", ref, case=deal, causationid=timer, id=id_, data={}) if timer else None
            case "bad":
                data = {"bad": True, "name": "x"}
                return event("crm.opportunity.changed", deal, version=f"{n}", id=id_, data=data)
            case "ignored":
                return event("hub.delivery.ignored", f"delivery/pm/{n}", case=deal, id=id_, data={})
            case "again":
                return self.told[n % len(self.told)] if self.told else None
            case "relay":
                self._relay()
                return None
            case "noise":
                self.partition.append(Record(EVENTS.name, 0, 0, deal.encode(), b"{" if n % 3 else b""))
                return None
        return self._note(deal, kind, id_)

    def _relay(self) -> None:
        """What the worker itself has told, as executor, outbox and relay bring it back."""
        self.partition.fold()
        known = {each.id for each in self.told}
        values = [orjson.loads(each.value or b"") for each in self.partition.log.records[COMMANDS.name, 0]]
        for value in values:
            told = Event.model_validate(value["event"]) if value.get("record") == "event" else None
            if told is not None and told.id not in known:
                known.add(told.id)
                self.told.append(told)
                self.partition.append(told)

    def _note(self, deal: str, kind: str, id_: str) -> Event:
        waiting = self._waiting(deal)
        wanted = waiting[0 if self.count % 2 else -1] if waiting else "x"
        data: dict[str, Any] = {"parked": wanted}
        if kind == "mend":
            data["event"] = orjson.loads(event("crm.opportunity.changed", deal, version="2").to_json())
        name = {"retry": "retried", "discard": "discarded", "mend": "edited"}[kind]
        return event(f"hub.parked.{name}", deal, id=id_, data=data)

    def _result(self, deal: str) -> Event | None:
        self.partition.fold()
        asked = [c for c in self.partition.commands() if c.case == deal]
        known = {e.causationid for e in self.told}
        one = next((c for c in asked if c.id not in known), None)
        if one is None:
            return None
        id_ = derived_id("result", one.id, "done")
        if one.type in ("project.create", "task.create"):
            return result(one, one.id[:8]).model_copy(update={"id": id_})
        data = {"type": one.type, "arguments": dict(one.arguments)}
        return event("hub.command.done", f"command/pm/{one.id}", case=deal, causationid=one.id, id=id_, data=data)
