"""The processor's state of one case: its entities, its open commands, and its parked events.

A small case is one state record that holds everything. The record of a large case holds only what changed last; the rest has state
records of its own (`SeparateRecords`), which are read on lookup.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from schemas.decoding import AnyEvent
from schemas.registry import ENDS, EventSpec, event_spec

MAX_RECENT_IDS = 16
"""Ids of unsequenced events that a case remembers, to detect duplicates."""
CLOSED_STAGES = frozenset({"completed", "cancelled", "deleted"})
"""The stages in which a task needs no more work."""
DELETED = "deleted"
"""The stage of an entity that its source has deleted. An event of a later version restores the stage it had before."""
MAX_HELD_INLINE = 20
"""Parked events in the case's own record; later ones have records of their own."""
MAX_FIRED_RULES = 200
"""Rule names that an entity remembers for one stage."""
ANY_RULE = "*"
"""Placeholder for a rule's name in state of format 1, which stored none: any rule may have fired in this stage."""

replace = msgspec.structs.replace
"""Copy a struct with some fields replaced."""


class Entity(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A business object, folded from the log so far: the newest version wins, field by field."""

    ref: str
    data: Mapping[str, Any] = {}
    sources: Mapping[str, tuple[str, str]] = {}
    """Field → (source, time) of the event that set its value, or cleared it."""
    version: str = ""
    time: str = ""
    stage: str | None = None
    entered: Mapping[str, int] = {}
    """Stage → how often it was entered."""
    fired: Mapping[str, tuple[str, ...]] = {}
    """Stage → the rules that have fired since the entity last entered it; for the current stage and for `was`."""
    was: str | None = None
    """The stage before it was deleted."""
    tasks_of: Mapping[str, int] = {}
    """Of a task: command id of each project it belongs to → how often."""

    @property
    def kind(self) -> str:
        """The first part of its reference."""
        return self.ref.partition("/")[0]


class RequestedWork(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A project or a project's task that the case requested: the counters that decide when the project is completed."""

    type: str
    instance: str
    project: str | None = None
    """Id of the command that creates its project."""
    made: str | None = None
    """Reference of the entity that the command created."""
    tasks: int = 0
    """Of a project: how many tasks were requested; `existing`, `closed` and `completed` count subsets of these."""
    existing: int = 0
    closed: int = 0
    completed: int = 0


class HeldEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A parked event: its log offset, and the error code."""

    offset: int
    event: str
    code: str
    edit: int | None = None
    """Log offset of the event that corrects it; the next retry reads that one."""


class SeparateRecords(Protocol):
    """The parts of a large case that have state records of their own, as of the write of the case record that left them out."""

    def entity(self, ref: str) -> Entity | None:
        """An entity."""

    def requested(self, command: str) -> RequestedWork | None:
        """The work that this command requested."""

    def held(self, number: int) -> HeldEvent | None:
        """The parked event with this number; None when it was discarded."""

    def refs(self) -> Iterable[str]:
        """The references of its entities."""


class Case(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One case: an immutable value; `hub.engine.step` computes the next one."""

    id: str
    opened_by: str
    entities: Mapping[str, Entity] = {}
    requested: Mapping[str, RequestedWork] = msgspec.field(default={}, name="asked")
    held: tuple[HeldEvent, ...] = ()
    """The first parked events, in order."""
    outbox: str | None = None
    sequence: int = 0
    recent: tuple[str, ...] = ()
    behind: Mapping[int, HeldEvent | None] = {}
    """Number → parked event behind `held`; None when it was discarded."""
    numbers: tuple[int, int] = (0, 0)
    """The first number behind `held`, and the number of the next event to be parked."""
    count: int = 0
    """Entities in total, those in separate records included."""
    is_apart: bool = False
    apart: SeparateRecords | msgspec.UnsetType = msgspec.UNSET
    alive: int = 0
    """Entities that are still expected to change."""
    ended: int = 0
    """Entities that have reached a final stage."""
    due: int = 0
    """Requested commands without a final result yet, and timers that have not fired yet."""
    spans: tuple[int, ...] | None = None
    """Log ranges of its records, as `hub.processor.case_expiry` writes them; None when unknown or too many."""

    @property
    def is_over(self) -> bool:
        """Whether the case is complete: at least one entity has ended, none is alive, and no command is due and no event parked."""
        return self.ended > 0 and not (self.alive or self.due or self.held)

    def entity(self, ref: str) -> Entity | None:
        """An entity of the case; None when the case has no event of it."""
        known = self.entities.get(ref)
        return self.apart.entity(ref) if known is None and self.apart is not msgspec.UNSET else known

    def requested_work(self, command: str) -> RequestedWork | None:
        """The work that this command requested; None for a command that no project completion depends on."""
        known = self.requested.get(command)
        return self.apart.requested(command) if known is None and self.apart is not msgspec.UNSET else known

    def refs(self) -> set[str]:
        """The references of all entities."""
        return {*self.entities, *(() if self.apart is msgspec.UNSET else self.apart.refs())}

    def waiting(self) -> Iterator[HeldEvent]:
        """All parked events, in order."""
        yield from self.held
        yield from (entry for _, entry in self._behind())

    def _behind(self) -> Iterator[tuple[int, HeldEvent]]:
        for number in range(*self.numbers):
            known = self.behind.get(number)
            if known is None and number not in self.behind and self.apart is not msgspec.UNSET:
                known = self.apart.held(number)
            if known is not None:
                yield number, known

    def with_held(self, entry: HeldEvent) -> Case:
        """The case with one more parked event."""
        first, last = self.numbers
        if first == last and len(self.held) < MAX_HELD_INLINE:
            return replace(self, held=(*self.held, entry))
        return replace(self, behind={**self.behind, last: entry}, numbers=(first, last + 1))

    def without_first(self) -> Case:
        """The case without its first parked event, which was retried."""
        return replace(self, held=self.held[1:])._moved_up()

    def without_held(self, event: str) -> Case:
        """The case without the parked entries of this event."""
        gone = {number: None for number, entry in self._behind() if entry.event == event}
        held = tuple(entry for entry in self.held if entry.event != event)
        return replace(self, held=held, behind={**self.behind, **gone})._moved_up()

    def with_edit(self, event: str, offset: int) -> Case:
        """The case with the log offset of a correction noted in the parked event."""
        behind = {number: replace(entry, edit=offset) for number, entry in self._behind() if entry.event == event}
        held = tuple(replace(entry, edit=offset) if entry.event == event else entry for entry in self.held)
        return replace(self, held=held, behind={**self.behind, **behind})

    def _moved_up(self) -> Case:
        """Refill `held` once it is empty, so that an empty `held` means that nothing is parked."""
        first, last = self.numbers
        if self.held or first == last:
            return self
        moved = list(islice(self._behind(), MAX_HELD_INLINE))
        first = moved[-1][0] + 1 if len(moved) == MAX_HELD_INLINE else last
        behind = {number: entry for number, entry in self.behind.items() if number >= first}
        return replace(self, held=tuple(entry for _, entry in moved), behind=behind, numbers=(first, last))

    def has_seen(self, event: AnyEvent) -> bool:
        """Whether this record is a duplicate of one that was folded: by its sequence, else by its id."""
        if event.sequence is not None and event.outbox == self.outbox:
            return int(event.sequence) <= self.sequence
        return event.id in self.recent

    def remember(self, event: AnyEvent) -> Case:
        """The case with this record noted as folded."""
        outbox, sequence, recent = self._deduplication(event)
        return replace(self, outbox=outbox, sequence=sequence, recent=recent)

    def _deduplication(self, event: AnyEvent) -> tuple[str | None, int, tuple[str, ...]]:
        """Outbox, sequence and recent ids, this record included."""
        recent = (*self.recent, event.id)[-MAX_RECENT_IDS:]
        if event.sequence is None:
            return self.outbox, self.sequence, recent
        return event.outbox, int(event.sequence), recent

    def with_entity(self, event: AnyEvent) -> Case:
        """The case with the event folded into its subject's entity."""
        entities, count, alive, ended = self._entities(event)
        return replace(self, entities=entities, count=count, alive=alive, ended=ended)

    def after(self, event: AnyEvent) -> Case:
        """`remember` and `with_entity` in one: copies the case once instead of twice."""
        entities, count, alive, ended = self._entities(event)
        return Case(
            self.id, self.opened_by, entities, self.requested, self.held, *self._deduplication(event),
            self.behind, self.numbers, count, self.is_apart, self.apart, alive, ended, self.due, self.spans,
        )  # fmt: skip

    def _entities(self, event: AnyEvent) -> tuple[Mapping[str, Entity], int, int, int]:
        """The entities with the event folded in, and the counts: in total, alive, ended."""
        known = self.entity(event.subject)
        entity = _folded(known or Entity(ref=event.subject), event)
        entities, count, alive, ended = {**self.entities, event.subject: entity}, self.count, self.alive, self.ended
        if known is not None and known.stage == entity.stage:
            return entities, count, alive, ended
        was, now = alive_and_ended(known) if known is not None else (0, 0), alive_and_ended(entity)
        return entities, count + (known is None), alive + now[0] - was[0], ended + now[1] - was[1]

    def with_known(self, entity: Entity) -> Case:
        """The case with a known entity replaced."""
        return replace(self, entities={**self.entities, entity.ref: entity})

    def with_fired(self, event: AnyEvent, rules: Sequence[str]) -> Case:
        """The case with these rules noted as fired in the current stage of the event's entity."""
        entity = self.entities[event.subject]
        stage = entity.stage or ""
        names = tuple(dict.fromkeys((*entity.fired.get(stage, ()), *rules)))[-MAX_FIRED_RULES:]
        return self.with_known(replace(entity, fired={**entity.fired, stage: names}))

    def as_value(self, refs: Iterable[str] | None = None) -> dict[str, Any]:
        """What rules see as `case`, with the entities in `refs`, by default all."""
        entities = ((ref, self.entity(ref)) for ref in (self.refs() if refs is None else refs))
        return {
            "id": self.id,
            "opened_by": self.opened_by,
            "entities": {
                ref: {"kind": entity.kind, "stage": entity.stage or "", "data": dict(entity.data)}
                for ref, entity in entities
                if entity is not None
            },
        }


def _folded(known: Entity, event: AnyEvent) -> Entity:
    """Fold an event into its entity. An older version only fills in missing fields; it overwrites none."""
    newer, spec = is_newer(known, event), event_spec(event.type)
    protected = () if newer else known.sources
    updates = _updates(event.data, protected, spec.log_only)
    cleared = _cleared(event, protected) if event.clears else ()
    data, origin = {**known.data, **updates}, (event.source, event.time)
    for name in cleared:
        data.pop(name, None)
    stage, entered, was = _staged(known, spec, newer)
    return Entity(
        known.ref,
        data,
        {**known.sources, **dict.fromkeys((*updates, *cleared), origin)},
        (event.subjectversion or known.version) if newer else known.version,
        event.time if newer else known.time,
        stage,
        entered,
        _still_fired(known, entered, {stage, was}) if known.fired else known.fired,
        was,
        known.tasks_of,
    )


def _updates(data: Mapping[str, Any], protected: Container[str], log_only: frozenset[str]) -> Mapping[str, Any]:
    """The fields of an event's data to write to its entity: those with a value, neither `protected` nor `log_only` (as `why`)."""
    if not protected and None not in data.values() and log_only.isdisjoint(data):
        return data
    return {
        key: value for key, value in data.items() if value is not None and key not in protected and key not in log_only
    }


def _cleared(event: AnyEvent, protected: Container[str]) -> Sequence[str]:
    """The fields that an event clears, without `protected` ones. A field that the event also sets is not cleared."""
    empty = [name for name in event.clears or () if event.data.get(name) is None]
    return [name for name in empty if name not in protected and name != "why"]


def _staged(known: Entity, spec: EventSpec, newer: bool) -> tuple[str | None, Mapping[str, int], str | None]:
    """Stage, entry counts and `was` of an entity after an event. A late event counts its stage once and changes no later stage."""
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
    """The rules that have fired, for the stages that the entity has not left; deletion does not leave a stage."""
    same = {stage for stage, times in entered.items() if known.entered.get(stage) == times}
    return {stage: names for stage, names in known.fired.items() if stage in stages and stage in same}


def is_newer(known: Entity, event: AnyEvent) -> bool:
    """Whether an event describes a later state than the known one.

    Only versions, or times, of one source can be compared: events without a version (our own effects, buttons) count in log
    order.
    """
    version = event.subjectversion
    if not known.version or not version:
        return True
    if version.isdecimal() and known.version.isdecimal():
        return int(version) >= int(known.version)
    return event.time >= known.time


STATE_FORMAT = 2
"""Format of the state records that are written; `_lifted` upgrades older ones."""


class CaseRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A state record: first the log offset it reflects, then the time since when the case is over, then the case."""

    offset: int
    over: str = ""
    case: Case
    form: int = 1


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(CaseRecord).decode


def to_json(case: Case, offset: int, over: str = "") -> bytes:
    """Encode a state record: the case, the log offset it reflects, and the time since when it is over."""
    return _encode(CaseRecord(offset=offset, over=over, case=case, form=STATE_FORMAT))


def from_json(raw: bytes) -> tuple[Case, int]:
    """Decode a state record to (case, offset); raises msgspec.DecodeError or UnicodeDecodeError for other bytes."""
    record = _decode(raw)
    return (record.case if record.form == STATE_FORMAT else _lifted(record.case)), record.offset


def _lifted(case: Case) -> Case:
    """Upgrade a case of format 1, which stored neither the rules that fired nor task counts."""
    entities = {ref: replace(entity, fired=_any_rule(entity)) for ref, entity in case.entities.items()}
    requested = dict(case.requested)
    for each in case.requested.values():
        project = requested.get(each.project or "")
        if project is None:
            continue
        made = entities.get(each.made or "")
        if made is not None:
            links = {**made.tasks_of, str(each.project): made.tasks_of.get(str(each.project), 0) + 1}
            entities[made.ref] = replace(made, tasks_of=links)
        project = replace(project, tasks=project.tasks + 1)
        requested[str(each.project)] = with_task_change(project, None, made, each.made is not None)
    return replace(case, entities=entities, requested=requested, count=len(entities))


def with_task_change(
    project: RequestedWork, before: Entity | None, after: Entity | None, existing: int = 0, times: int = 1
) -> RequestedWork:
    """The project's counters after one of its tasks changed from `before` to `after`. `existing`: how many more tasks exist."""
    was, now = _is_closed(before), _is_closed(after)
    return replace(
        project,
        existing=project.existing + existing,
        closed=project.closed + times * (now[0] - was[0]),
        completed=project.completed + times * (now[1] - was[1]),
    )


def alive_and_ended(entity: Entity) -> tuple[int, int]:
    """(1, 0) for an entity that may still change, (0, 1) for one that has ended, (0, 0) for a kind without a final stage."""
    if entity.stage == DELETED:
        return 0, 1
    ends = ENDS.get(entity.kind)
    if ends is None:
        return 0, 0
    return (0, 1) if entity.stage in ends else (1, 0)


def _is_closed(task: Entity | None) -> tuple[bool, bool]:
    """Whether a task is closed, and whether it is completed."""
    return (task.stage in CLOSED_STAGES, task.stage == "completed") if task is not None else (False, False)


def _any_rule(entity: Entity) -> Mapping[str, tuple[str, ...]]:
    return {} if entity.stage is None else {entity.stage: (ANY_RULE,)}


class PartRecord(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A separate state record of a large case: exactly one of the three parts, as of this log offset, which comes first."""

    offset: int
    entity: Entity | None = None
    requested: RequestedWork | None = msgspec.field(default=None, name="asked")
    held: HeldEvent | None = None


_decode_part = msgspec.json.Decoder(PartRecord).decode


def part_to_json(part: PartRecord) -> bytes:
    """Encode the part as its state record."""
    return _encode(part)


def part_from_json(raw: bytes) -> PartRecord:
    """Decode it; raises as `from_json`."""
    return _decode_part(raw)
