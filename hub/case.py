"""What the processor remembers of one case: its entities, the commands it asked for, and what is parked in it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec

from schemas.catalog import EventSpec, event_spec
from schemas.recorded import AnyEvent

RECENT = 16
"""How many ids of unsequenced events a case keeps, to know a repeat by."""
DELETED = "deleted"
"""The stage of what its source has deleted. News of a later version revive it in the stage it had before."""
FIRED = 200
"""Names of rules that an entity keeps for one stage."""
UNKNOWN = "*"
"""In the place of a rule's name: a version before this one kept none, so any rule may have asked in this stage."""


altered = msgspec.structs.replace
"""The same value with other fields."""


class Entity(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A business object as the log has told of it so far: newest version wins, field by field."""

    ref: str
    data: Mapping[str, Any] = {}
    sources: Mapping[str, tuple[str, str]] = {}
    """Field → (source, time) of its value; of a field without a value, of the event that cleared it."""
    version: str = ""
    time: str = ""
    stage: str | None = None
    entered: Mapping[str, int] = {}
    """Stage → how often it was entered."""
    fired: Mapping[str, tuple[str, ...]] = {}
    """Stage → the rules that have asked since it was entered last; of the stage it is in, and of `was`."""
    was: str | None = None
    """The stage before it was deleted."""

    @property
    def kind(self) -> str:
        """The first part of its reference."""
        return self.ref.partition("/")[0]


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A project or a project's task that the case asked for: what its completion is told by."""

    type: str
    instance: str
    project: str | None = None
    """The id of the command that makes its project."""
    made: str | None = None
    """The entity that came of it."""


class Held(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An event that is parked: where it lies in the log, and why."""

    offset: int
    event: str
    code: str
    edit: int | None = None
    """Where the event lies that corrects it; the next try reads that."""


class Case(msgspec.Struct, frozen=True, gc=False):
    """One case. A pure value: `hub.step` makes the next one of it."""

    id: str
    opened_by: str
    entities: Mapping[str, Entity] = {}
    asked: Mapping[str, Asked] = {}
    held: tuple[Held, ...] = ()
    outbox: str | None = None
    sequence: int = 0
    recent: tuple[str, ...] = ()

    def has_seen(self, event: AnyEvent) -> bool:
        """Whether this record repeats one that was folded: by its sequence, else by its id."""
        if event.sequence is not None and event.outbox == self.outbox:
            return int(event.sequence) <= self.sequence
        return event.id in self.recent

    def remember(self, event: AnyEvent) -> Case:
        """The case, knowing that this record was folded."""
        outbox, sequence, recent = self._seen(event)
        return altered(self, outbox=outbox, sequence=sequence, recent=recent)

    def _seen(self, event: AnyEvent) -> tuple[str | None, int, tuple[str, ...]]:
        """Outbox, sequence and recent ids, this record among them."""
        recent = (*self.recent, event.id)[-RECENT:]
        if event.sequence is None:
            return self.outbox, self.sequence, recent
        return event.outbox, int(event.sequence), recent

    def with_entity(self, event: AnyEvent) -> Case:
        """The case, with what the event tells of its subject."""
        return altered(self, entities=self._entities(event))

    def after(self, event: AnyEvent) -> Case:
        """As `remember` and `with_entity`, with one copy of the case instead of two."""
        return Case(self.id, self.opened_by, self._entities(event), self.asked, self.held, *self._seen(event))

    def _entities(self, event: AnyEvent) -> Mapping[str, Entity]:
        known = self.entities.get(event.subject) or Entity(ref=event.subject)
        return {**self.entities, event.subject: _told(known, event)}

    def with_fired(self, event: AnyEvent, rules: Sequence[str]) -> Case:
        """The case, knowing that these rules have asked in the stage that the event's entity is in."""
        entity = self.entities[event.subject]
        stage = entity.stage or ""
        names = tuple(dict.fromkeys((*entity.fired.get(stage, ()), *rules)))[-FIRED:]
        known = altered(entity, fired={**entity.fired, stage: names})
        return altered(self, entities={**self.entities, event.subject: known})

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


def _told(known: Entity, event: AnyEvent) -> Entity:
    """Fold an event into its entity. An older version fills in fields that are missing, and takes nothing back."""
    newer, spec = is_newer(known, event), event_spec(event.type)
    had = () if newer else known.sources
    fresh = _fresh(event.data, had, spec.untold)
    cleared = _cleared(event, had) if event.clears else ()
    data, mark = {**known.data, **fresh}, (event.source, event.time)
    for name in cleared:
        data.pop(name, None)
    stage, entered, was = _staged(known, spec, newer)
    return Entity(
        known.ref,
        data,
        {**known.sources, **dict.fromkeys((*fresh, *cleared), mark)},
        (event.subjectversion or known.version) if newer else known.version,
        event.time if newer else known.time,
        stage,
        entered,
        _still_fired(known, entered, {stage, was}) if known.fired else known.fired,
        was,
    )


def _fresh(told: Mapping[str, Any], had: Container[str], untold: frozenset[str]) -> Mapping[str, Any]:
    """What an event tells that is to be taken in: not what is `untold` of its entity, as why it was made, nor what `had` has."""
    if not had and None not in told.values() and untold.isdisjoint(told):
        return told
    return {key: value for key, value in told.items() if value is not None and key not in had and key not in untold}


def _cleared(event: AnyEvent, had: Container[str]) -> Sequence[str]:
    """The fields that an event empties. One that it gives a value all the same has that value."""
    return [name for name in event.clears or () if event.data.get(name) is None and name not in had and name != "why"]


def _staged(known: Entity, spec: EventSpec, newer: bool) -> tuple[str | None, Mapping[str, int], str | None]:
    """Stage, entries and `was` of an entity after an event. Late news of a stage count once, and change no later stage."""
    stage, now, was = spec.stage, known.stage, known.was
    if stage == now or (stage is None and now != DELETED):
        return now, known.entered, was
    if now == DELETED and newer:
        now, was = was, None
    times = known.entered.get(stage, 0) if stage is not None else 0
    late = not newer or (spec.opens and now is not None)
    if stage is None or stage == now or (late and times):
        return now, known.entered, was
    entered = {**known.entered, stage: times + 1}
    if late:
        return now, entered, was
    return stage, entered, now if stage == DELETED else None


def _still_fired(
    known: Entity, entered: Mapping[str, int], stages: Container[str | None]
) -> Mapping[str, tuple[str, ...]]:
    """Which rules have asked in a stage counts until that stage is left; being deleted is not leaving it."""
    same = {stage for stage, times in entered.items() if known.entered.get(stage) == times}
    return {stage: names for stage, names in known.fired.items() if stage in stages and stage in same}


def is_newer(known: Entity, event: AnyEvent) -> bool:
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


FORM = 2
"""Of the state records that are written; `_lifted` brings older ones to it."""


class Kept(msgspec.Struct, frozen=True, gc=False):
    """A state record: a case, and the log offset that it reflects, which stands first."""

    offset: int
    case: Case
    form: int = 1


_written = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Kept).decode


def to_json(case: Case, offset: int) -> bytes:
    """The case as its state record: with the log offset that it reflects."""
    return _written(Kept(offset, case, FORM))


def from_json(raw: bytes) -> tuple[Case, int]:
    """Read a state record back; raises msgspec.DecodeError or UnicodeDecodeError for bytes that are none."""
    kept = _read(raw)
    return (kept.case if kept.form == FORM else _lifted(kept.case)), kept.offset


def _lifted(case: Case) -> Case:
    """A case of the first form, which did not say which rules had asked."""
    entities = {ref: altered(entity, fired=_any_rule(entity)) for ref, entity in case.entities.items()}
    return altered(case, entities=entities)


def _any_rule(entity: Entity) -> Mapping[str, tuple[str, ...]]:
    return {} if entity.stage is None else {entity.stage: (UNKNOWN,)}
