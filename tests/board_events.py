"""Events as the hub writes them to its log, for tests of boards."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hub.log.event_log import EventLog, Outgoing
from hub.log.partitioner import partition_of
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec
from schemas.topics import EVENTS, PARTITIONS


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


START = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
DEAL: dict[str, Any] = {
    "name": "网关项目",
    "account": "华为",
    "amount": "880000",
    "currency": "CNY",
    "owner": "person/wang.fang",
}
RULE: dict[str, Any] = {
    "rule": "won-deal-to-delivery",
    "digest": "sha256:5a0c",
    "title": {"zh-CN": "赢单自动立项", "en": "A won deal becomes a delivery project"},
    "matched": {"event.data.amount": "880000"},
}


def event(
    type_: str,
    subject: str,
    data: Mapping[str, Any],
    *,
    case: str | None = None,
    minutes: float = 0.0,
    version: str | None = None,
    cause: str | None = None,
    clears: list[str] | None = None,
) -> Event:
    """An event that happened so many minutes after the start, and was recorded a second later."""
    at = START + timedelta(minutes=minutes)
    return Event(
        id=derived_id("test", type_, subject, version or "", str(minutes)),
        source=f"/connectors/{subject.split('/')[1]}",
        type=type_,
        subject=subject,
        time=format_time(at),
        recordedtime=format_time(at + timedelta(seconds=1)),
        dataschema=event_spec(type_).dataschema,
        partitionkey=case or subject,
        correlationid=case or subject,
        causationid=cause,
        subjectversion=version,
        clears=clears,
        data=dict(data),
    )


@dataclass(frozen=True)
class Deal:
    """One won deal and the work that comes of it, step by step."""

    number: int
    minutes: float = 0.0
    name: str = "网关项目"
    tasks: tuple[str, ...] = ("启动会", "实施方案", "回款计划")
    instance: str = "pm"

    @property
    def case(self) -> str:
        return f"opportunity/crm/O-{self.number}"

    def won(self) -> Event:
        data = {**DEAL, "name": self.name}
        return event("crm.opportunity.won", self.case, data, minutes=self.minutes, version="7")

    def command(self, task: int) -> str:
        return derived_id("command", self.case, str(task))

    def why(self, task: int) -> dict[str, Any]:
        return {**RULE, "command": self.command(task), "event": self.won().id, "subject": self.case}

    def task(self, task: int) -> str:
        return f"task/{self.instance}/{self.number * 100 + task}"

    def requested(self, task: int) -> Event:
        data = {
            "title": self.tasks[task],
            "project": self.command(99),
            "assignee": "person/li.lei",
            "due": "2026-11-24",
            "why": self.why(task),
        }
        return self._event("work.task.requested", f"request/{self.instance}/{self.command(task)}", data, 0)

    def project(self) -> Event:
        data = {"name": f"交付 {self.name}", "customer": "华为", "why": self.why(99)}
        return self._event("work.project.created", f"project/{self.instance}/P-{self.number}", data, 1)

    def created(self, task: int) -> Event:
        data = {
            "title": self.tasks[task],
            "project": f"P-{self.number}",
            "assignee": "person/li.lei",
            "due": "2026-11-24",
            "why": self.why(task),
        }
        return self._event("work.task.created", self.task(task), data, 2)

    def step(self, task: int, name: str, minutes: float, version: str | None = None) -> Event:
        data = {"by": "person/li.lei"}
        return self._event(f"work.task.{name}", self.task(task), data, minutes, version=version)

    def parked(self, task: int, minutes: float = 2) -> Event:
        data = {
            "type": "task.create",
            "code": "HUB-E4006",
            "reason": "no such project",
            "attempts": 1,
            "why": self.why(task),
        }
        return self._event("hub.command.parked", f"command/{self.instance}/{self.command(task)}", data, minutes)

    def story(self) -> list[Event]:
        """Until every task exists."""
        asked = [self.requested(task) for task in range(len(self.tasks))]
        made = [self.created(task) for task in range(len(self.tasks))]
        return [self.won(), *asked, self.project(), *made]

    def _event(
        self, type_: str, subject: str, data: Mapping[str, Any], minutes: float, version: str | None = None
    ) -> Event:
        return event(type_, subject, data, case=self.case, minutes=self.minutes + minutes, version=version)


@dataclass
class Relay:
    """Appends events as the hub's relay does: each partition's sequence without a gap."""

    log: EventLog
    outbox: str = "o1"
    last: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def send(self, events: Iterable[Event]) -> list[Event]:
        """Append in order; what was written comes back."""
        numbered = [self._numbered(each) for each in events]
        self.append(numbered)
        return numbered

    def append(self, events: Iterable[Event]) -> None:
        """Append as they are."""
        writer = self.log.writer()
        writer.append([Outgoing(EVENTS.name, each.case.encode(), each.to_json()) for each in events])
        writer.close()

    def raw(self, key: str, value: bytes | None) -> None:
        """Append any bytes."""
        writer = self.log.writer()
        writer.append([Outgoing(EVENTS.name, key.encode(), value)])
        writer.close()

    def _numbered(self, each: Event) -> Event:
        partition = partition_of(each.case.encode(), PARTITIONS)
        self.last[partition] += 1
        return each.model_copy(update={"sequence": str(self.last[partition]), "outbox": self.outbox})
