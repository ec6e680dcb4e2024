"""What the processor remembers of one case: its entities, the commands it asked for, and what is parked in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from schemas.catalog import EventSpec, event_spec
from schemas.event import Event

RECENT = 16
"""How many ids of unsequenced events a case keeps, to know a repeat by."""


T = TypeVar("T")


def altered(value: T, **fields: Any) -> T:
    """As `dataclasses.replace`, at a fifth of its cost, for what is done several times an event. Only for classes of this file."""
    made = object.__new__(type(value))
    made.__dict__.update(value.__dict__, **fields)
    return made


@dataclass(frozen=True)
class Entity:
    """A business object as the log has told of it so far: newest version wins, field by field."""

    ref: str
    data: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Field → (source, time) of its value."""
    version: str = ""
    time: str = ""
    stage: str | None = None
    entered: Mapping[str, int] = field(default_factory=dict)
    """Stage → how often it was entered."""

    @property
    def kind(self) -> str:
        """The first part of its reference."""
        return self.ref.partition("/")[0]


@dataclass(frozen=True)
class Asked:
    """A project or a project's task that the case asked for: what its completion is told by."""

    type: str
    instance: str
    project: str | None = None
    """The id of the command that makes its project."""
    made: str | None = None
    """The entity that came of it."""


@dataclass(frozen=True)
class Held:
    """An event that is parked: where it lies in the log, and why."""

    offset: int
    event: str
    code: str
    edit: int | None = None
    """Where the event lies that corrects it; the next try reads that."""


@dataclass(frozen=True)
class Case:
    """One case. A pure value: `hub.step` makes the next one of it."""

    id: str
    opened_by: str
    entities: Mapping[str, Entity] = field(default_factory=dict)
    asked: Mapping[str, Asked] = field(default_factory=dict)
    held: tuple[Held, ...] = ()
    outbox: str | None = None
    sequence: int = 0
    recent: tuple[str, ...] = ()

    def has_seen(self, event: Event) -> bool:
        """Whether this record repeats one that was folded: by its sequence, else by its id."""
        if event.sequence is not None and event.outbox == self.outbox:
            return int(event.sequence) <= self.sequence
        return event.id in self.recent

    def remember(self, event: Event) -> Case:
        """The case, knowing that this record was folded."""
        if event.sequence is not None:
            return altered(self, outbox=event.outbox, sequence=int(event.sequence), recent=self._recent(event))
        return altered(self, recent=self._recent(event))

    def _recent(self, event: Event) -> tuple[str, ...]:
        return (*self.recent, event.id)[-RECENT:]

    def with_entity(self, event: Event) -> Case:
        """The case, with what the event tells of its subject."""
        known = self.entities.get(event.subject) or Entity(ref=event.subject)
        return altered(self, entities={**self.entities, event.subject: _told(known, event)})

    def as_value(self) -> dict[str, Any]:
        """What rules see as `case`."""
        return {
            "id": self.id,
            "opened_by": self.opened_by,
            "entities": {
                ref: {"kind": entity.kind, "stage": entity.stage or "", "data": dict(entity.data)}
                for ref, entity in self.entities.items()
            },
        }


def _told(known: Entity, event: Event) -> Entity:
    """Fold an event into its entity. An older version fills in fields that are missing, and takes nothing back."""
    newer = _is_newer(known, event)
    had = () if newer else known.data
    fresh = {key: value for key, value in event.data.items() if value is not None and key not in had and key != "why"}
    stage, entered = _staged(known, event_spec(event.type), newer)
    return altered(
        known,
        data={**known.data, **fresh},
        sources={**known.sources, **dict.fromkeys(fresh, (event.source, event.time))},
        version=(event.subjectversion or known.version) if newer else known.version,
        time=event.time if newer else known.time,
        stage=stage,
        entered=entered,
    )


def _staged(known: Entity, spec: EventSpec, newer: bool) -> tuple[str | None, Mapping[str, int]]:
    """The entity's stage after an event. Late news of a stage count once, and change no stage that came after."""
    stage = spec.stage
    if stage is None or stage == known.stage:
        return known.stage, known.entered
    times = known.entered.get(stage, 0)
    late = not newer or (spec.opens and known.stage is not None)
    if late and times:
        return known.stage, known.entered
    return known.stage if late else stage, {**known.entered, stage: times + 1}


def _is_newer(known: Entity, event: Event) -> bool:
    """Whether an event tells of a later state than the one that is known.

    Only versions of one source can be compared, and only the source's own clock with itself: news without a version (our
    own effects, buttons) count in the order in which the log has them.
    """
    version = event.subjectversion
    if not known.version or not version:
        return True
    if version.isdecimal() and known.version.isdecimal():
        return int(version) >= int(known.version)
    return event.time >= known.time


def to_json(case: Case, offset: int) -> bytes:
    """The case as its state record: with the log offset that it reflects."""
    if not case.held:
        return orjson.dumps({"offset": offset, "case": case})
    # Without what is not set: a worker of an older version, to which the partition may go back, knows no corrections.
    held = [{name: value for name, value in vars(entry).items() if value is not None} for entry in case.held]
    return orjson.dumps({"offset": offset, "case": {**vars(case), "held": held}})


def from_json(raw: bytes) -> tuple[Case, int]:
    """Read a state record back; raises ValueError, KeyError or TypeError for bytes that are none."""
    record = orjson.loads(raw)
    told = record["case"]
    entities = {
        ref: Entity(**{**value, "sources": _pairs(value["sources"])}) for ref, value in told["entities"].items()
    }
    asked = {key: Asked(**value) for key, value in told["asked"].items()}
    held = tuple(Held(**value) for value in told["held"])
    return Case(
        **{**told, "entities": entities, "asked": asked, "held": held, "recent": tuple(told["recent"])}
    ), record["offset"]


def _pairs(sources: Mapping[str, list[str]]) -> dict[str, tuple[str, str]]:
    return {name: (source, time) for name, (source, time) in sources.items()}
