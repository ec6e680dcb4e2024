"""What the processor remembers of one case: its entities, the commands it asked for, and what is parked in it.

A small case is one value that holds all of it. Of a large one the value holds what changed last; the rest is `Apart`, in records
of its own, and is read where it is looked for.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from schemas.decoding import AnyEvent
from schemas.registry import ENDS, EventSpec, event_spec

RECENT = 16
"""How many ids of unsequenced events a case keeps, to know a repeat by."""
CLOSED = frozenset({"completed", "cancelled", "deleted"})
"""The stages in which nobody waits for a task."""
DELETED = "deleted"
"""The stage of what its source has deleted. News of a later version revive it in the stage it had before."""
HELD = 20
"""Parked events in the case's own record; those behind them have records of their own."""
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
    tasks_of: Mapping[str, int] = {}
    """The projects whose task it is, by the command that asked for each, and how often."""

    @property
    def kind(self) -> str:
        """The first part of its reference."""
        return self.ref.partition("/")[0]


class Asked(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A project or a project's task that the case asked for: what its completion is told by."""

    type: str
    instance: str
    project: str | None = None
    """The id of the command that makes its project."""
    made: str | None = None
    """The entity that came of it."""
    tasks: int = 0
    """Of a project: how many tasks were asked for; of these, how many exist, are closed, and are completed."""
    existing: int = 0
    closed: int = 0
    completed: int = 0


class Held(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """An event that is parked: where it lies in the log, and why."""

    offset: int
    event: str
    code: str
    edit: int | None = None
    """Where the event lies that corrects it; the next try reads that."""


class Apart(Protocol):
    """What of a case has records of its own: as it was when the case's own record was written that no longer has it."""

    def entity(self, ref: str) -> Entity | None:
        """An entity."""

    def asked(self, command: str) -> Asked | None:
        """What was asked for by this command."""

    def held(self, number: int) -> Held | None:
        """The parked event of this number; None when it was discarded."""

    def refs(self) -> Iterable[str]:
        """The references of its entities."""


class Case(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One case. A pure value: `hub.engine.step` makes the next one of it."""

    id: str
    opened_by: str
    entities: Mapping[str, Entity] = {}
    asked: Mapping[str, Asked] = {}
    held: tuple[Held, ...] = ()
    """What is parked, the first of it."""
    outbox: str | None = None
    sequence: int = 0
    recent: tuple[str, ...] = ()
    behind: Mapping[int, Held | None] = {}
    """Number → what is parked behind `held`; None where it was discarded."""
    numbers: tuple[int, int] = (0, 0)
    """The first number behind `held`, and the one that the next gets."""
    count: int = 0
    """Entities, wherever they are."""
    is_apart: bool = False
    apart: Apart | msgspec.UnsetType = msgspec.UNSET
    alive: int = 0
    """Entities of which more is expected."""
    ended: int = 0
    """Entities of which nothing more is."""
    due: int = 0
    """Commands that were asked for and of whose end nothing came yet; timers that were set and have not fired."""
    spans: tuple[int, ...] | None = None
    """Where its records lie in the log, as `hub.processor.case_expiry` writes it; None where that is not known, or is too much."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected: something has ended, nothing is alive, under way or parked."""
        return self.ended > 0 and not (self.alive or self.due or self.held)

    def entity(self, ref: str) -> Entity | None:
        """An entity of the case; None for one that it never heard of."""
        known = self.entities.get(ref)
        return self.apart.entity(ref) if known is None and self.apart is not msgspec.UNSET else known

    def asked_for(self, command: str) -> Asked | None:
        """What was asked for by this command; None for what no completion waits for."""
        known = self.asked.get(command)
        return self.apart.asked(command) if known is None and self.apart is not msgspec.UNSET else known

    def refs(self) -> set[str]:
        """The references of all entities."""
        return {*self.entities, *(() if self.apart is msgspec.UNSET else self.apart.refs())}

    def waiting(self) -> Iterator[Held]:
        """All that is parked, in order."""
        yield from self.held
        yield from (entry for _, entry in self._behind())

    def _behind(self) -> Iterator[tuple[int, Held]]:
        for number in range(*self.numbers):
            known = self.behind.get(number)
            if known is None and number not in self.behind and self.apart is not msgspec.UNSET:
                known = self.apart.held(number)
            if known is not None:
                yield number, known

    def with_held(self, entry: Held) -> Case:
        """The case, with one more event parked."""
        first, last = self.numbers
        if first == last and len(self.held) < HELD:
            return altered(self, held=(*self.held, entry))
        return altered(self, behind={**self.behind, last: entry}, numbers=(first, last + 1))

    def without_first(self) -> Case:
        """The case, with the first that is parked taken up."""
        return altered(self, held=self.held[1:])._moved_up()

    def without_held(self, event: str) -> Case:
        """The case, with what is parked of this event left out."""
        gone = {number: None for number, entry in self._behind() if entry.event == event}
        held = tuple(entry for entry in self.held if entry.event != event)
        return altered(self, held=held, behind={**self.behind, **gone})._moved_up()

    def with_edit(self, event: str, offset: int) -> Case:
        """The case, knowing where the correction of what is parked lies."""
        behind = {number: altered(entry, edit=offset) for number, entry in self._behind() if entry.event == event}
        held = tuple(altered(entry, edit=offset) if entry.event == event else entry for entry in self.held)
        return altered(self, held=held, behind={**self.behind, **behind})

    def _moved_up(self) -> Case:
        """Fill `held` again once it is empty: it is, only if nothing is parked."""
        first, last = self.numbers
        if self.held or first == last:
            return self
        moved = list(islice(self._behind(), HELD))
        first = moved[-1][0] + 1 if len(moved) == HELD else last
        behind = {number: entry for number, entry in self.behind.items() if number >= first}
        return altered(self, held=tuple(entry for _, entry in moved), behind=behind, numbers=(first, last))

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
        entities, count, alive, ended = self._entities(event)
        return altered(self, entities=entities, count=count, alive=alive, ended=ended)

    def after(self, event: AnyEvent) -> Case:
        """As `remember` and `with_entity`, with one copy of the case instead of two."""
        entities, count, alive, ended = self._entities(event)
        return Case(
            self.id, self.opened_by, entities, self.asked, self.held, *self._seen(event),
            self.behind, self.numbers, count, self.is_apart, self.apart, alive, ended, self.due, self.spans,
        )  # fmt: skip

    def _entities(self, event: AnyEvent) -> tuple[Mapping[str, Entity], int, int, int]:
        """The entities, with what the event tells of its subject; how many there are, are alive, and have ended."""
        known = self.entity(event.subject)
        told = _told(known or Entity(ref=event.subject), event)
        entities, count, alive, ended = {**self.entities, event.subject: told}, self.count, self.alive, self.ended
        if known is not None and known.stage == told.stage:
            return entities, count, alive, ended
        was, now = standing(known) if known is not None else (0, 0), standing(told)
        return entities, count + (known is None), alive + now[0] - was[0], ended + now[1] - was[1]

    def with_known(self, entity: Entity) -> Case:
        """The case, with an entity that it knows in another state."""
        return altered(self, entities={**self.entities, entity.ref: entity})

    def with_fired(self, event: AnyEvent, rules: Sequence[str]) -> Case:
        """The case, knowing that these rules have asked in the stage that the event's entity is in."""
        entity = self.entities[event.subject]
        stage = entity.stage or ""
        names = tuple(dict.fromkeys((*entity.fired.get(stage, ()), *rules)))[-FIRED:]
        return self.with_known(altered(entity, fired={**entity.fired, stage: names}))

    def as_value(self, refs: Iterable[str] | None = None) -> dict[str, Any]:
        """What rules see as `case`, with these of its entities, else with all."""
        found = ((ref, self.entity(ref)) for ref in (self.refs() if refs is None else refs))
        return {
            "id": self.id,
            "opened_by": self.opened_by,
            "entities": {
                ref: {"kind": entity.kind, "stage": entity.stage or "", "data": dict(entity.data)}
                for ref, entity in found
                if entity is not None
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
        known.tasks_of,
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


class CaseRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A state record: a case, and the log offset that it reflects, which stands first; then, of one that is over, since when."""

    offset: int
    over: str = ""
    case: Case
    form: int = 1


_written = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(CaseRecord).decode


def to_json(case: Case, offset: int, over: str = "") -> bytes:
    """The case as its state record: with the log offset that it reflects, and since when it is over."""
    return _written(CaseRecord(offset=offset, over=over, case=case, form=FORM))


def from_json(raw: bytes) -> tuple[Case, int]:
    """Read a state record back; raises msgspec.DecodeError or UnicodeDecodeError for bytes that are none."""
    kept = _read(raw)
    return (kept.case if kept.form == FORM else _lifted(kept.case)), kept.offset


def _lifted(case: Case) -> Case:
    """A case of the first form, which did not say which rules had asked, and counted no tasks."""
    entities = {ref: altered(entity, fired=_any_rule(entity)) for ref, entity in case.entities.items()}
    asked = dict(case.asked)
    for each in case.asked.values():
        project = asked.get(each.project or "")
        if project is None:
            continue
        made = entities.get(each.made or "")
        if made is not None:
            links = {**made.tasks_of, str(each.project): made.tasks_of.get(str(each.project), 0) + 1}
            entities[made.ref] = altered(made, tasks_of=links)
        asked[str(each.project)] = counted(altered(project, tasks=project.tasks + 1), None, made, each.made is not None)
    return altered(case, entities=entities, asked=asked, count=len(entities))


def counted(project: Asked, before: Entity | None, after: Entity | None, existing: int = 0, times: int = 1) -> Asked:
    """A project, when one of its tasks was in one state and is in another. `existing`: how many more there are now."""
    was, now = _closing(before), _closing(after)
    return altered(
        project,
        existing=project.existing + existing,
        closed=project.closed + times * (now[0] - was[0]),
        completed=project.completed + times * (now[1] - was[1]),
    )


def standing(entity: Entity) -> tuple[int, int]:
    """(1, 0) for an entity of which more is expected, (0, 1) for one that has ended, (0, 0) for a kind that no event ends."""
    if entity.stage == DELETED:
        return 0, 1
    ends = ENDS.get(entity.kind)
    if ends is None:
        return 0, 0
    return (0, 1) if entity.stage in ends else (1, 0)


def _closing(task: Entity | None) -> tuple[bool, bool]:
    """Whether a task is closed, and whether by being completed."""
    return (task.stage in CLOSED, task.stage == "completed") if task is not None else (False, False)


def _any_rule(entity: Entity) -> Mapping[str, tuple[str, ...]]:
    return {} if entity.stage is None else {entity.stage: (UNKNOWN,)}


class PartRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A state record of what is apart: one of the three, as it was at this log offset, which stands first."""

    offset: int
    entity: Entity | None = None
    asked: Asked | None = None
    held: Held | None = None


_read_part = msgspec.json.Decoder(PartRecord).decode


def part_to_json(part: PartRecord) -> bytes:
    """The part as its state record."""
    return _written(part)


def part_from_json(raw: bytes) -> PartRecord:
    """Read it back; raises as `from_json`."""
    return _read_part(raw)
