"""What one look at a hub found, stage by stage: accepted → in the log → folded → asked → done → shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from hub.rules.broken import BrokenFile

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
