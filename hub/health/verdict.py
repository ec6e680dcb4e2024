"""The verdict: facts and thresholds in, one state out, with everything that is wrong, worst first. Pure.

What one look at a hub found, stage by stage: accepted → in the log → folded → asked → done → shown.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from hub.rules.reload import BrokenFile

Stage = Literal["relay", "held", "rules", "asked", "calls", "boards"]
"""Who has to make headway: the relay (accepted → log), the second look (held → accepted), the worker (log → folded), the executor's
intake (folded → asked), its calls (asked → done), the boards (log → shown)."""
STAGES: tuple[Stage, ...] = ("held", "relay", "rules", "asked", "calls", "boards")
Key = tuple[Stage, str]


@dataclass(frozen=True)
class Queue:
    """What waits at one stage, in one place: a partition, an instance, a board.

    `position` changes with every step of headway, and with nothing else. `types` counts the events at its front by type. Of an
    instance's calls, `code` is why they fail, where they do, and `busy` whether one is under way.
    """

    stage: Stage
    where: str
    count: int
    oldest: datetime | None
    position: str
    types: Mapping[str, int] = field(default_factory=dict)
    code: str | None = None
    busy: bool = False

    @property
    def key(self) -> Key:
        """Stage and place: the same in every look."""
        return self.stage, self.where

    def age(self, now: datetime) -> float:
        """Seconds for which the oldest has waited; 0 when nothing waits."""
        return max(0.0, (now - self.oldest).total_seconds()) if self.oldest is not None else 0.0


@dataclass(frozen=True)
class ProgramFact:
    """A program of this machine: `ready`, `starting`, `frozen` (stopped, or deaf for too long) or `down`."""

    name: str
    pid: int | None
    state: str
    restarts: int = 0


@dataclass(frozen=True)
class StreamFact:
    """A polled stream: when it was last read to the end of a page, and how often it should be."""

    instance: str
    stream: str
    read_at: datetime
    interval: float


@dataclass(frozen=True)
class Away:
    """A store that did not answer: `broker`, `ledger` or `boards`, and its error's code and words in both languages."""

    store: str
    code: str
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """All of one look. `running` is None where no supervisor is expected on this machine."""

    at: datetime
    running: bool | None = True
    programs: tuple[ProgramFact, ...] = ()
    away: tuple[Away, ...] = ()
    queues: tuple[Queue, ...] = ()
    streams: tuple[StreamFact, ...] = ()
    instances: Mapping[str, str] = field(default_factory=dict)
    """Instance → `ok`, `paused` (refuses our credentials) or `silent`, by the last fact told of it."""
    halted: tuple[Mapping[str, object], ...] = ()
    parked: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[BrokenFile, ...] = ()
    """Mistakes in the home's files, which the rules that judge do not have."""


STREAM_ROUNDS = 3
"""Polls that a stream may miss."""


class HealthState(enum.IntEnum):
    """How the hub is, from well to worst."""

    OK = 0
    DEGRADED = 1
    """It makes headway, and something waits for longer than it may."""
    STALLED = 2
    """A part makes no headway."""
    DOWN = 3
    """It does not run, or its log or ledger does not answer."""

    @property
    def word(self) -> str:
        """Its name for programs."""
        return self.name.lower()


@dataclass(frozen=True)
class HealthLimits:
    """Seconds that things may take; `hub.yaml` sets them under `health`."""

    oldest: float = 15.0
    """That anything may wait at one stage of the hub."""
    stream: float = 30.0
    """That a stream may go unread, unless its interval is longer."""
    still: float = 4.0
    """Without any headway, after which what waits stands still, and is not merely slow."""


@dataclass(frozen=True)
class Trouble:
    """One thing that is wrong. `kind` names its sentence, `facts` fill it; `outside` is no fault of the hub."""

    kind: str
    state: HealthState
    facts: Mapping[str, Any]
    outside: bool = False
    seconds: float = 0.0
    where: str = ""


@dataclass(frozen=True)
class StageFact:
    """A stage in figures: how many wait, for how long the oldest has, and how the stage is."""

    stage: Stage
    waiting: int
    oldest: float
    state: HealthState


@dataclass(frozen=True)
class HealthStatus:
    """How the hub is. An outside system that is away, and parked work, make it need a person, not unwell."""

    at: str
    state: HealthState
    troubles: tuple[Trouble, ...]
    stages: tuple[StageFact, ...]
    facts: Facts = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the hub itself is well."""
        return self.state is HealthState.OK

    @property
    def worst(self) -> Trouble | None:
        """What a sentence should be about."""
        return self.troubles[0] if self.troubles else None

    @property
    def parked(self) -> int:
        """How much work is parked."""
        return sum(self.facts.parked.values())


def judge(facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> HealthStatus:
    """Judge a look. `still`: for how many seconds each queue has been seen without headway; absent: not known to have moved."""
    troubles = sorted(_troubles(facts, limits, still), key=_weight)
    ours = [trouble.state for trouble in troubles if not trouble.outside]
    stages = tuple(_stage(facts, stage, troubles) for stage in STAGES)
    return HealthStatus(facts.at.isoformat(), max(ours, default=HealthState.OK), tuple(troubles), stages, facts)


ORDER = ("blind", "stopped", "away", "halted", "relay", "held", "rules", "asked", "calls", "boards", "program", "files")
"""What is told first of two that are as bad: what waits says more to people than which program it waits for."""


def _weight(trouble: Trouble) -> tuple[bool, int, int, float]:
    """Ours before others', worst first, then in their order, then by how long."""
    place = ORDER.index(trouble.kind) if trouble.kind in ORDER else len(ORDER)
    return trouble.outside, -trouble.state, place, -trouble.seconds


def _troubles(facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> Iterator[Trouble]:
    if facts.running is False:
        yield Trouble("stopped", HealthState.DOWN, {})
    for away in facts.away:
        why = {"store": away.store, "code": away.code, "reasons": away.reasons}
        yield Trouble("away", HealthState.DOWN, why, where=away.store)
    for program in facts.programs:
        if program.state in ("down", "frozen"):
            facts_ = {"program": program.name, "pid": program.pid, "is": program.state}
            yield Trouble("program", HealthState.STALLED, facts_, where=program.name)
    halted = {str(halt.get("partition")) for halt in facts.halted}
    for halt in facts.halted:
        yield Trouble("halted", HealthState.STALLED, {"partition": halt.get("partition"), "code": halt.get("code")})
    for stage in STAGES:
        mine = [queue for queue in facts.queues if queue.stage == stage]
        if stage == "calls":
            yield from _calls(mine, facts, limits, still)
        else:
            yield from _late(
                stage, [q for q in mine if stage != "rules" or q.where not in halted], facts, limits, still
            )
    yield from _streams(facts, limits)
    if facts.broken:
        first, *more = facts.broken
        told = {"place": first.place, "code": first.code, "more": len(more)}
        yield Trouble("files", HealthState.DEGRADED, told, outside=True, where=first.place)
    for name, state in facts.instances.items():
        if state != "ok":
            yield Trouble("instance", HealthState.DEGRADED, {"instance": name, "is": state}, outside=True, where=name)


def _late(
    stage: Stage, queues: list[Queue], facts: Facts, limits: HealthLimits, still: Mapping[Key, float]
) -> Iterator[Trouble]:
    """One trouble a stage: the sum of what is late, and the age of its oldest."""
    late = [queue for queue in queues if queue.age(facts.at) > limits.oldest]
    if not late:
        return
    types: dict[str, int] = {}
    for queue in late:
        for type_, count in queue.types.items():
            types[type_] = types.get(type_, 0) + count
    state = HealthState.STALLED if any(_stands(queue, limits, still) for queue in late) else HealthState.DEGRADED
    if stage == "held" and state is HealthState.DEGRADED:
        return  # held for a call of another system, which has ended just now
    oldest = max(queue.age(facts.at) for queue in late)
    where = [queue.where for queue in late]
    count = sum(queue.count for queue in queues)
    told = {"count": count, "seconds": oldest, "types": types, "where": where}
    yield Trouble(stage, state, told, seconds=oldest, where=", ".join(where))


def _stands(queue: Queue, limits: HealthLimits, still: Mapping[Key, float]) -> bool:
    return still.get(queue.key, limits.still) >= limits.still


def _calls(queues: list[Queue], facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> Iterator[Trouble]:
    """By instance: a system that fails us, or is slow, is another's fault; calls that nobody begins are ours."""
    for queue in queues:
        age = queue.age(facts.at)
        if age <= limits.oldest:
            continue
        told = {"instance": queue.where, "count": queue.count, "seconds": age, "code": queue.code}
        if queue.code is None and not queue.busy and _stands(queue, limits, still):
            yield Trouble("calls", HealthState.STALLED, told, seconds=age, where=queue.where)
        else:
            kind = "busy" if queue.code is None else "system"
            yield Trouble(kind, HealthState.DEGRADED, told, outside=True, seconds=age, where=queue.where)


def _streams(facts: Facts, limits: HealthLimits) -> Iterator[Trouble]:
    if facts.running is False:
        return
    for stream in facts.streams:
        age = (facts.at - stream.read_at).total_seconds()
        if is_late(age, stream.interval, limits) and facts.instances.get(stream.instance, "ok") == "ok":
            told = {"instance": stream.instance, "stream": stream.stream, "seconds": age}
            where = f"{stream.instance}/{stream.stream}"
            yield Trouble("stream", HealthState.DEGRADED, told, outside=True, seconds=age, where=where)


def is_late(age: float, interval: float, limits: HealthLimits) -> bool:
    """Whether a stream was read too long ago for how often it should be."""
    return age > max(limits.stream, STREAM_ROUNDS * interval)


def _stage(facts: Facts, stage: Stage, troubles: list[Trouble]) -> StageFact:
    queues = [queue for queue in facts.queues if queue.stage == stage]
    oldest = max((queue.age(facts.at) for queue in queues), default=0.0)
    kinds = {"calls": ("calls", "busy", "system")}.get(stage, (stage,))
    state = max((trouble.state for trouble in troubles if trouble.kind in kinds), default=HealthState.OK)
    return StageFact(stage, sum(queue.count for queue in queues), oldest, state)


@dataclass
class Headway:
    """Remembers since when each queue has made none, by the monotonic seconds of the looks."""

    seen: dict[Key, tuple[str, float]] = field(default_factory=dict)

    def note(self, facts: Facts, now: float) -> dict[Key, float]:
        """For how long each queue of this look has stood where it is; one that is new has stood for no time."""
        self.seen = {
            queue.key: (queue.position, self._since(queue, now)) for queue in facts.queues if queue.oldest is not None
        }
        return {key: now - since for key, (_, since) in self.seen.items()}

    def _since(self, queue: Queue, now: float) -> float:
        position, since = self.seen.get(queue.key, (None, now))
        return since if position == queue.position else now
