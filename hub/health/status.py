"""Health assessment: facts and thresholds in, one status out, with every trouble, worst first. Pure.

Facts follow the stages of the flow: accepted → in the log → folded → command consumed → command done → shown on boards.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from hub.rules.reload import BrokenFile

Stage = Literal["relay", "held", "rules", "asked", "calls", "boards"]
"""The part that has to make progress: the relay (accepted → log), deferred intake (held → accepted), the worker (log → folded), the
executor's command intake (folded → consumed), its calls (consumed → done), the boards (log → shown)."""
STAGES: tuple[Stage, ...] = ("held", "relay", "rules", "asked", "calls", "boards")
Key = tuple[Stage, str]


@dataclass(frozen=True)
class Queue:
    """The backlog of one stage in one place: a partition, an instance or a board.

    `position` changes with every step of progress, and with nothing else. `types` counts the events at its front by type. For the
    calls of an instance, `code` is the error of failing calls, and `busy` whether a call is in flight.
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
        """Stage and place: stable between checks."""
        return self.stage, self.where

    def age(self, now: datetime) -> float:
        """Seconds for which the oldest item has waited; 0 when nothing waits."""
        return max(0.0, (now - self.oldest).total_seconds()) if self.oldest is not None else 0.0


@dataclass(frozen=True)
class ProgramFact:
    """A program of this machine: `ready`, `starting`, `frozen` (stopped, or unresponsive for too long) or `down`."""

    name: str
    pid: int | None
    state: str
    restarts: int = 0


@dataclass(frozen=True)
class StreamFact:
    """A polled stream: the time at which it was last read to the end of a page, and its poll interval in seconds."""

    instance: str
    stream: str
    read_at: datetime
    interval: float


@dataclass(frozen=True)
class Away:
    """A store that did not answer: `broker`, `ledger` or `boards`, with the error's code and its message by language."""

    store: str
    code: str
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """All facts of one check. `running` is None where no supervisor is expected on this machine."""

    at: datetime
    running: bool | None = True
    programs: tuple[ProgramFact, ...] = ()
    away: tuple[Away, ...] = ()
    queues: tuple[Queue, ...] = ()
    streams: tuple[StreamFact, ...] = ()
    instances: Mapping[str, str] = field(default_factory=dict)
    """Instance → `ok`, `paused` (refuses our credentials) or `silent`, by the hub's last event about it."""
    halted: tuple[Mapping[str, object], ...] = ()
    parked: Mapping[str, int] = field(default_factory=dict)
    broken: tuple[BrokenFile, ...] = ()
    """Mistakes in the home's files; the rules in force are those from before the mistakes."""


MAX_MISSED_POLLS = 3
"""Polls that a stream may miss."""


class HealthState(enum.IntEnum):
    """The state of the hub, from best to worst."""

    OK = 0
    DEGRADED = 1
    """The hub makes progress, but some work has waited longer than its limit."""
    STALLED = 2
    """A part of the hub makes no progress."""
    DOWN = 3
    """The hub does not run, or its log or ledger does not answer."""

    @property
    def label(self) -> str:
        """Its name in JSON."""
        return self.name.lower()


@dataclass(frozen=True)
class HealthLimits:
    """Thresholds in seconds; `hub.yaml` sets them under `health`."""

    oldest: float = 15.0
    """Maximum age of waiting work at one stage of the hub."""
    stream: float = 30.0
    """Maximum age of a stream's last read, unless its interval is longer."""
    still: float = 4.0
    """Time without any progress after which a backlog counts as stalled, not merely slow."""


@dataclass(frozen=True)
class Trouble:
    """One problem. `kind` selects its sentence and `facts` fill it; `outside`: the cause is not in the hub."""

    kind: str
    state: HealthState
    facts: Mapping[str, Any]
    outside: bool = False
    seconds: float = 0.0
    where: str = ""


@dataclass(frozen=True)
class StageFact:
    """A stage in figures: the number of waiting items, the age of the oldest in seconds, and the stage's state."""

    stage: Stage
    waiting: int
    oldest: float
    state: HealthState


@dataclass(frozen=True)
class HealthStatus:
    """The status of the hub. An unavailable outside system or parked work needs a person, but does not make the hub unhealthy."""

    at: str
    state: HealthState
    troubles: tuple[Trouble, ...]
    stages: tuple[StageFact, ...]
    facts: Facts = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the hub itself is healthy."""
        return self.state is HealthState.OK

    @property
    def worst(self) -> Trouble | None:
        """The trouble that the one-sentence summary describes."""
        return self.troubles[0] if self.troubles else None

    @property
    def parked(self) -> int:
        """The number of parked items."""
        return sum(self.facts.parked.values())


def assess(facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> HealthStatus:
    """Assess the facts. `still`: seconds for which each queue has made no progress; a missing queue counts as stalled."""
    troubles = sorted(_troubles(facts, limits, still), key=_weight)
    ours = [trouble.state for trouble in troubles if not trouble.outside]
    stages = tuple(_stage(facts, stage, troubles) for stage in STAGES)
    return HealthStatus(facts.at.isoformat(), max(ours, default=HealthState.OK), tuple(troubles), stages, facts)


TROUBLE_ORDER = (
    "blind",
    "stopped",
    "away",
    "halted",
    "relay",
    "held",
    "rules",
    "asked",
    "calls",
    "boards",
    "program",
    "files",
)
"""Order of equally severe troubles: a backlog is more informative to people than the program that it waits for."""


def _weight(trouble: Trouble) -> tuple[bool, int, int, float]:
    """Sort key: the hub's own before outside ones, worst first, then by TROUBLE_ORDER, then longest first."""
    place = TROUBLE_ORDER.index(trouble.kind) if trouble.kind in TROUBLE_ORDER else len(TROUBLE_ORDER)
    return trouble.outside, -trouble.state, place, -trouble.seconds


def _troubles(facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> Iterator[Trouble]:
    if facts.running is False:
        yield Trouble("stopped", HealthState.DOWN, {})
    for away in facts.away:
        details: dict[str, Any] = {"store": away.store, "code": away.code, "reasons": away.reasons}
        yield Trouble("away", HealthState.DOWN, details, where=away.store)
    for program in facts.programs:
        if program.state in ("down", "frozen"):
            details = {"program": program.name, "pid": program.pid, "is": program.state}
            yield Trouble("program", HealthState.STALLED, details, where=program.name)
    halted = {str(halt.get("partition")) for halt in facts.halted}
    for halt in facts.halted:
        yield Trouble("halted", HealthState.STALLED, {"partition": halt.get("partition"), "code": halt.get("code")})
    for stage in STAGES:
        of_stage = [queue for queue in facts.queues if queue.stage == stage]
        if stage == "calls":
            yield from _calls(of_stage, facts, limits, still)
        else:
            yield from _late(
                stage, [q for q in of_stage if stage != "rules" or q.where not in halted], facts, limits, still
            )
    yield from _streams(facts, limits)
    if facts.broken:
        first, *more = facts.broken
        details = {"place": first.place, "code": first.code, "more": len(more)}
        yield Trouble("files", HealthState.DEGRADED, details, outside=True, where=first.place)
    for name, state in facts.instances.items():
        if state != "ok":
            yield Trouble("instance", HealthState.DEGRADED, {"instance": name, "is": state}, outside=True, where=name)


def _late(
    stage: Stage, queues: list[Queue], facts: Facts, limits: HealthLimits, still: Mapping[Key, float]
) -> Iterator[Trouble]:
    """At most one trouble per stage: the sum of its late queues, and the age of the oldest item."""
    late = [queue for queue in queues if queue.age(facts.at) > limits.oldest]
    if not late:
        return
    types: dict[str, int] = {}
    for queue in late:
        for type_, count in queue.types.items():
            types[type_] = types.get(type_, 0) + count
    state = HealthState.STALLED if any(_is_stalled(queue, limits, still) for queue in late) else HealthState.DEGRADED
    if stage == "held" and state is HealthState.DEGRADED:
        return  # it was deferred by a call to another system that has ended just now
    oldest = max(queue.age(facts.at) for queue in late)
    where = [queue.where for queue in late]
    count = sum(queue.count for queue in queues)
    details = {"count": count, "seconds": oldest, "types": types, "where": where}
    yield Trouble(stage, state, details, seconds=oldest, where=", ".join(where))


def _is_stalled(queue: Queue, limits: HealthLimits, still: Mapping[Key, float]) -> bool:
    return still.get(queue.key, limits.still) >= limits.still


def _calls(queues: list[Queue], facts: Facts, limits: HealthLimits, still: Mapping[Key, float]) -> Iterator[Trouble]:
    """Troubles by instance: a failing or slow system is an outside cause; calls that the hub does not start are its own fault."""
    for queue in queues:
        age = queue.age(facts.at)
        if age <= limits.oldest:
            continue
        details = {"instance": queue.where, "count": queue.count, "seconds": age, "code": queue.code}
        if queue.code is None and not queue.busy and _is_stalled(queue, limits, still):
            yield Trouble("calls", HealthState.STALLED, details, seconds=age, where=queue.where)
        else:
            kind = "busy" if queue.code is None else "system"
            yield Trouble(kind, HealthState.DEGRADED, details, outside=True, seconds=age, where=queue.where)


def _streams(facts: Facts, limits: HealthLimits) -> Iterator[Trouble]:
    if facts.running is False:
        return
    for stream in facts.streams:
        age = (facts.at - stream.read_at).total_seconds()
        if is_late(age, stream.interval, limits) and facts.instances.get(stream.instance, "ok") == "ok":
            details = {"instance": stream.instance, "stream": stream.stream, "seconds": age}
            where = f"{stream.instance}/{stream.stream}"
            yield Trouble("stream", HealthState.DEGRADED, details, outside=True, seconds=age, where=where)


def is_late(age: float, interval: float, limits: HealthLimits) -> bool:
    """Whether a stream's last read is too old for its poll interval."""
    return age > max(limits.stream, MAX_MISSED_POLLS * interval)


def _stage(facts: Facts, stage: Stage, troubles: list[Trouble]) -> StageFact:
    queues = [queue for queue in facts.queues if queue.stage == stage]
    oldest = max((queue.age(facts.at) for queue in queues), default=0.0)
    kinds = {"calls": ("calls", "busy", "system")}.get(stage, (stage,))
    state = max((trouble.state for trouble in troubles if trouble.kind in kinds), default=HealthState.OK)
    return StageFact(stage, sum(queue.count for queue in queues), oldest, state)


@dataclass
class ProgressTracker:
    """Tracks since when each queue has made no progress, in monotonic seconds."""

    _positions: dict[Key, tuple[str, float]] = field(default_factory=dict)

    def note(self, facts: Facts, now: float) -> dict[Key, float]:
        """Queue → seconds for which its position has not changed; 0 for a new queue."""
        self._positions = {
            queue.key: (queue.position, self._since(queue, now)) for queue in facts.queues if queue.oldest is not None
        }
        return {key: now - since for key, (_, since) in self._positions.items()}

    def _since(self, queue: Queue, now: float) -> float:
        position, since = self._positions.get(queue.key, (None, now))
        return since if position == queue.position else now
