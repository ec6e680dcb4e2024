"""The outside systems: they count effects by command id, forget nothing, and answer as the seed has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import orjson

from connectors.builtin.connector import connect as connect_builtin
from hub.errors import FatalError, RejectedError, RetryableError, UncertainError
from hub.kit.connector import Connector, Delivery, Effect, Fact, Idempotency, Instance, Page, RateLimits, Unmapped
from schemas.envelope import Command, format_time, parse_time
from tests.simulation.chance import Chance, SimClock

LIMITS = RateLimits(per_second=1000.0, at_once=2, timeout=5.0, settle=2.0)
LAG = 1.5
"""Seconds by which an effect may come, or be found, later than its answer: less than `settle`, as every connector must say."""
TAKES = frozenset({"project.create", "task.create", "record.update"})


@dataclass
class Pushed:
    """A push that its sender repeats until it is accepted."""

    instance: str
    id: str
    body: bytes

    def delivery(self, clock: SimClock) -> Delivery:
        return Delivery({"webhook-id": self.id, "content-type": "application/json"}, self.body, clock.now())


def push(instance: str, id_: str, *facts: Fact | str) -> Pushed:
    """A push that tells these facts; a text stands for what no mapping can tell, about that object."""
    told = [
        fact
        if isinstance(fact, str)
        else {
            "type": fact.type,
            "subject": fact.subject,
            "version": fact.version,
            "time": format_time(fact.time),
            "data": dict(fact.data),
            "belongs_to": fact.belongs_to,
            "origin": fact.origin,
        }
        for fact in facts
    ]
    return Pushed(instance, id_, orjson.dumps(told))


@dataclass
class Told:
    """The port `Receives`: what `push` says."""

    chance: Chance
    mended: Callable[[], bool] = lambda: True

    def verify(self, delivery: Delivery) -> None:
        """All are signed well."""

    def id_of(self, delivery: Delivery) -> str | None:
        """What the delivery says of itself."""
        return delivery.headers.get("webhook-id")

    def read(self, delivery: Delivery) -> tuple[Fact | Unmapped, ...]:
        return tuple(self._one(each) for each in orjson.loads(delivery.body))

    def _one(self, told: dict[str, object] | str) -> Fact | Unmapped:
        if isinstance(told, str):
            raw = orjson.dumps(told)
            return Unmapped(raw, "HUB-E6101", {"type": "?", "subject": told, "field": "?", "reason": "?"}, told)
        return Fact(**{**told, "time": parse_time(str(told["time"]))})  # type: ignore[arg-type]  # what `push` wrote


@dataclass
class System:
    """One system, and the port `Sends` to it."""

    name: str
    class_: Idempotency
    chance: Chance
    outbound: list[Pushed]
    """Where its own pushes wait to be sent."""
    effects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    order: list[str] = field(default_factory=list)
    """Command ids in the order of their first effects."""
    objects: dict[str, tuple[str, Command]] = field(default_factory=dict)
    seen_from: dict[str, float] = field(default_factory=dict)
    later: list[tuple[float, Command]] = field(default_factory=list)
    """Requests that were taken and are yet to be carried out."""
    refused: frozenset[str] = frozenset()
    """Command types that it refuses, until it is mended."""
    command_types: frozenset[str] = TAKES
    limits: RateLimits = LIMITS

    def idempotency(self, type_: str) -> Idempotency:
        return self.class_

    def send(self, command: Command) -> Effect:
        chance = self.chance
        if command.type in self.refused:
            raise RejectedError("HUB-E4006", instance=self.name, reason="422")
        if not chance.trouble("misbehave", self.name):
            return self._do(command)
        match chance.random.randrange(9):
            case 0:
                raise RetryableError("HUB-E4005", instance=self.name, reason="refused")
            case 1:
                raise RetryableError("HUB-E4004", instance=self.name, retry_after=float(chance.random.choice((1, 9))))
            case 2:
                raise UncertainError("HUB-E4002", instance=self.name, reason="503, nothing done")
            case 3:
                self._do(command)
                raise UncertainError("HUB-E4002", instance=self.name, reason="time-out, done")
            case 4:
                self.later.append((self._now() + chance.random.uniform(0, LAG), command))
                raise UncertainError("HUB-E4002", instance=self.name, reason="time-out, done later")
            case 5:
                self._do(command)
                raise ValueError("garbage on 200")
            case 6:
                raise FatalError("HUB-E4003", instance=self.name, reason="401")
            case 7:
                chance.pass_by("request.lost")
                raise UncertainError("HUB-E4002", instance=self.name, reason="reset, nothing done")
            case _:
                self._do(command)
                chance.pass_by("answer.lost")
                raise UncertainError("HUB-E4002", instance=self.name, reason="reset, done")

    def find(self, command: Command) -> Effect | None:
        if self.chance.trouble("misbehave", f"{self.name}.find"):
            raise RetryableError("HUB-E4005", instance=self.name, reason="away")
        self.settle()
        if command.id in self.objects and self.seen_from[command.id] <= self._now():
            return Effect(self.objects[command.id][0])
        return None

    def settle(self) -> None:
        """Carry out what was taken and whose time has come."""
        due = [entry for entry in self.later if entry[0] <= self._now()]
        self.later = [entry for entry in self.later if entry[0] > self._now()]
        for _, command in due:
            self._do(command)

    def _now(self) -> float:
        return self.chance.clock.monotonic()

    def _do(self, command: Command) -> Effect:
        if self.class_ is Idempotency.KEY and command.id in self.objects:
            return Effect(self.objects[command.id][0])
        self.effects[command.id] += 1
        made = f"{command.type[0].upper()}{len(self.order) + 1}"
        if command.id not in self.objects:
            self.order.append(command.id)
            self.objects[command.id] = (made, command)
            lag = self.chance.random.uniform(0, LAG) if self.chance.random.random() < 0.3 else 0.0
            self.seen_from[command.id] = self._now() + lag
            self._echo(made, command)
        return Effect(made, {"id": made})

    def _echo(self, made: str, command: Command) -> None:
        """It tells of what we made there, perhaps before its answer reaches us; and later of its end."""
        kind = command.type.partition(".")[0]
        if kind != "task":
            return
        at, subject = self.chance.clock.at, f"{kind}/{self.name}/{made}"
        data = {"title": str(command.arguments.get("title", "")), "by": "U-1"}
        news = [("changed", "1", command.id), ("started", "2", None), ("completed", "3", None)]
        for name, version, origin in news[: self.chance.random.randrange(4)]:
            fact = Fact(
                f"work.task.{name}", subject, version, at + timedelta(seconds=int(version)), data, origin=origin
            )
            self.outbound.append(push(self.name, f"{made}-{version}", fact))


@dataclass
class Stock:
    """The port `Polls`: an inventory whose pages overlap."""

    chance: Chance
    facts: Sequence[Fact]
    streams: tuple[str, ...] = ("stock",)
    interval: float = 1.0

    def poll(self, stream: str, cursor: str | None) -> Page:
        if self.chance.trouble("misbehave", "erp.poll"):
            raise RetryableError("HUB-E4005", instance="erp", reason="away")
        read = int(cursor or 0)
        first, last = max(0, read - 1), min(read + 2, len(self.facts))
        return Page(tuple(self.facts[first:last]), str(last), last < len(self.facts))


def connectors(pm: System, erp: System, stock: Stock, chance: Chance) -> dict[str, Connector]:
    """Every connected system, as a program's start makes them anew."""
    told = Told(chance)
    return {
        "crm": Connector(Instance("crm", "sim", {}), receives=told),
        "pm": Connector(Instance("pm", "sim", {}), receives=told, sends=pm),
        "erp": Connector(Instance("erp", "sim", {}), polls=stock, sends=erp),
        "im": connect_builtin(Instance("im", "builtin", {"use": "builtin"})),
    }
