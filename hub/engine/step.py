"""All decisions: what one event does to its case, and what should be done about it. No clock, no network, no random.

The live worker, what-if runs, rebuilds and tests all call `step`; whoever replays a log gets the same outputs, under the same ids.

Which events tell of the end of a command that a case has asked for: until then the command is due. Pure.

What a step may say: commands, events of the processor's own, views of entities, and news of parked work.

Each output is one record. Commands, events and news of parked work travel on `hub.commands`, so that the ledger takes them in
by one door and in one order; views travel on the topic of their kind.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from hub.engine.case import DELETED, Asked, Case, Entity, altered, counted, is_newer
from hub.errors import RejectedError
from hub.log.event_log import Outgoing
from schemas import topics
from schemas.decoding import AnyEvent
from schemas.domains.work import Cause
from schemas.envelope import Command, Event, derived_id, promised
from schemas.registry import COMMANDS, event_spec

FAILED, FIRED, DONE = "hub.command.failed", "hub.timer.fired", "hub.command.done"
TIMER = "timer.set"
_TYPES = frozenset({FAILED, FIRED, DONE, *(spec.result for spec in COMMANDS.values())})


def is_end(event: AnyEvent) -> bool:
    """Whether a command is due no longer. One that is parked still is, and so is a timer until it has fired."""
    command = event.causationid
    if command is None or event.type not in _TYPES:
        return False
    if event.type in (FAILED, FIRED):
        return True
    is_set = event.type == DONE and event.data.get("type") == TIMER
    return not is_set and event.id == derived_id("result", command, "done")


NO_CASE = b"hub"
"""The key of outputs that belong to no case."""


_json = msgspec.json.Encoder().encode
"""As orjson.dumps, a third cheaper for texts that were just read; and it takes integers of any size, as an event may hold them."""


class View(msgspec.Struct, frozen=True, gc=False):
    """The current state of an entity."""

    entity: Entity
    case: str
    event: str

    def record(self) -> Outgoing | None:
        """Its record; None for a kind that has no topic."""
        topic = topics.VIEWS.get(self.entity.kind)
        if topic is None:
            return None
        told = self.entity
        value = _Shown(told.ref, self.case, told.stage, told.version, told.time, self.event, told.data, told.sources)
        return Outgoing(topic.name, told.ref.encode(), _json(value))


class _Shown(msgspec.Struct, frozen=True, gc=False):
    """A view's value, in the order of its fields."""

    subject: str
    case: str
    stage: str | None
    version: str
    time: str
    event: str
    data: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]


class Ask(msgspec.Struct, frozen=True, gc=False):
    """A command for the executor."""

    command: Command

    def record(self) -> Outgoing:
        return Outgoing(topics.COMMANDS.name, self.command.case.encode(), _json(self.command.__dict__))


class Derive(msgspec.Struct, frozen=True, gc=False):
    """An event that follows from others: it enters the log by the outbox, as all do."""

    event: Event

    def record(self) -> Outgoing:
        value = {"record": "event", "event": self.event.model_dump(exclude_none=True)}
        return Outgoing(topics.COMMANDS.name, self.event.case.encode(), _json(value))


@dataclass(frozen=True)
class ParkedEvent:
    """An event that cannot go on, for the ledger's list of parked work."""

    ref: str
    case: str | None
    subject: str | None
    code: str
    seen: dict[str, Any]
    place: str | None
    rule: str | None
    body: bytes
    mark: int | None = None
    """The log offset of what failed: told again under it, it is the same failure."""

    def record(self) -> Outgoing:
        value = {
            "record": "parked",
            "mark": self.mark,
            "kind": "event",
            "ref": self.ref,
            "case_id": self.case,
            "subject": self.subject,
            "code": self.code,
            "seen": {name: str(fact) for name, fact in self.seen.items()},
            "place": self.place,
            "rule": self.rule,
            "body": base64.b64encode(self.body).decode(),
        }
        return Outgoing(topics.COMMANDS.name, self.case.encode() if self.case else NO_CASE, _json(value))

    def fields(self) -> dict[str, str]:
        """What a log line tells of it, as `HubError.fields`."""
        told = RejectedError(self.code, **self.seen).fields()
        return {**told, **({"place": self.place} if self.place else {}), "fix": f"{told['fix']} · hub parked"}


@dataclass(frozen=True)
class SettledEvent:
    """A parked event is done or discarded."""

    ref: str
    case: str
    state: str

    def record(self) -> Outgoing:
        value = {"record": "settled", "ref": self.ref, "state": self.state}
        return Outgoing(topics.COMMANDS.name, self.case.encode(), _json(value))


Output = View | Ask | Derive | ParkedEvent | SettledEvent


OBJECTS = 500_000
"""Of one case. An event that tells of one more is parked, and the case waits."""
MOST_COMMANDS = 5_000
"""Of all rules together, for one event."""


class Decided(Protocol):
    """What the rules make of an event."""

    @property
    def live(self) -> Sequence[Command]:
        """Commands to carry out, in order."""

    @property
    def shadow(self) -> Sequence[Command]:
        """Commands that rules in shadow mode would have asked for."""

    @property
    def fired(self) -> Sequence[str]:
        """The rules that have asked, live or in shadow mode, and wait for the stage that the entity is in: they used it up."""


class StepRules(Protocol):
    """The rules, as a step sees them."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decided:
        """What follows from an event; pure. Raises RejectedError when a rule cannot be evaluated on it.

        A rule that is among those that have `fired` in the stage of the event's entity is not asked again.
        """


class Step(msgspec.Struct, frozen=True, gc=False):
    """The case after an event, and what to send before that case is kept."""

    case: Case
    outputs: tuple[Output, ...] = ()


def step(case: Case | None, event: AnyEvent, rules: StepRules) -> Step:
    """Fold one event into its case and say what should be done about it.

    `case` is what was remembered under the event's case id, None before its first event. An event that the case has seen gives
    no outputs and the same case. Raises RejectedError when a rule fails on it; the case is then as it was.
    """
    if case is not None and case.has_seen(event):
        return Step(case)
    return decide(case or opened_by(event), event, rules)


def opened_by(event: AnyEvent) -> Case:
    """A new case, named after what opened it."""
    return Case(id=event.case, opened_by=event.subject, spans=())


def decide(case: Case, event: AnyEvent, rules: StepRules, *, remembered: bool = False) -> Step:
    """As `step`, for an event that is known to be new to the case, or that was parked and is `remembered` since."""
    folded = case.with_entity(event) if remembered else case.after(event)
    if folded.count > case.count and folded.count > OBJECTS:
        raise RejectedError("HUB-E6024", case=case.id, most=OBJECTS)
    after, completed = _counted(case, folded, event)
    if after.due and is_end(event):
        after = altered(after, due=after.due - 1)
    view = View(after.entities[event.subject], case.id, event.id)
    occurrence = occurrence_of(case, after, event)
    if occurrence is None:
        return Step(after, (view, *completed))
    decided = rules.commands_for(after, event, occurrence)
    if not decided.live and not decided.shadow and not decided.fired:
        return Step(after, (view, *completed))
    if len(decided.live) + len(decided.shadow) > MOST_COMMANDS:
        raise RejectedError("HUB-E6026", most=MOST_COMMANDS)
    asked = [Ask(command) for command in decided.live]
    shadowed = [Derive(_shadow(command, event)) for command in decided.shadow]
    done = after.with_fired(event, decided.fired) if decided.fired else after
    return Step(_asking(done, decided.live), (view, *asked, *shadowed, *completed))


def occurrence_of(before: Case, after: Case, event: AnyEvent) -> str | None:
    """What makes this event's commands its own: the how-manieth entry of a stage, or the event itself.

    News of a stage that the entity is in are of the same entry: a rule that has not asked in it may ask now. None for news of
    a stage that was left, or of an older state: no rule answers those.
    """
    stage = event_spec(event.type).stage
    if stage is None:
        return event.id
    known, entity = before.entity(event.subject), after.entities[event.subject]
    times = entity.entered.get(stage, 0)
    if known is not None and known.entered.get(stage, 0) == times:
        of_now = entity.stage == stage and is_newer(known, event)
        return f"{stage}#{times}" if of_now else None
    return f"{stage}#{times}"


def _asking(case: Case, commands: Sequence[Command]) -> Case:
    """Remember how many commands are due, and the projects and their tasks among them: when all are completed, it is."""
    new = dict[str, Asked]()
    for command in commands:
        project = promised(command.arguments.get("project"))
        is_task = command.type == "task.create" and project is not None
        if not (is_task or command.type == "project.create") or command.id in new or case.asked_for(command.id):
            continue
        new[command.id] = Asked(command.type, command.instance, project)
        owner = (new.get(project) or case.asked_for(project)) if project is not None else None
        if project is not None and owner is not None:
            new[project] = altered(owner, tasks=owner.tasks + 1)
    due = case.due + len({command.id for command in commands})
    if not new:
        return case if due == case.due else altered(case, due=due)
    return altered(case, asked={**case.asked, **new}, due=due)


def _counted(case: Case, after: Case, event: AnyEvent) -> tuple[Case, Sequence[Derive]]:
    """The case, with what the event changes in the projects that it asked for, and those that are completed by it.

    An event changes some that tells of one of their tasks, or that what the case asked for exists now.
    """
    entity, asked = after.entities[event.subject], _asked_by(after, event)
    if not entity.tasks_of and asked is None:
        return after, ()
    changed, before = dict[str, Asked](), case.entity(event.subject)
    for one, times in entity.tasks_of.items():
        owner = after.asked_for(one)
        if owner is not None:
            changed[one] = counted(owner, before, entity, times=times)
    if asked is not None:
        command, project = str(event.causationid), asked.project
        is_made = event.type != REQUESTED
        changed[command] = altered(changed.get(command, asked), made=event.subject) if is_made else asked
        owner = (changed.get(project) or after.asked_for(project)) if project else None
        if project and not is_made:
            owner = owner or Asked("project.create", asked.instance)  # the news of it are on their way
            changed[project] = altered(owner, tasks=owner.tasks + 1)
        elif project and owner is not None:
            changed[project] = counted(owner, None, entity, existing=1)
            links = {**entity.tasks_of, project: entity.tasks_of.get(project, 0) + 1}
            after = after.with_known(altered(entity, tasks_of=links))
    after = altered(after, asked={**after.asked, **changed})
    projects = [command for command, each in changed.items() if each.type == "project.create"]
    return after, [Derive(told) for each in projects if (told := _completion(after, each, event))]


def _asked_by(case: Case, event: AnyEvent) -> Asked | None:
    """What the case asked for by the command of whose effect the event tells, if that is news."""
    if event.causationid is None or event.type not in _EFFECTS:
        return None
    known = case.asked_for(event.causationid)
    if known is None:
        return _told_of(event)
    return None if known.made or event.type == REQUESTED else known


REQUESTED = "work.task.requested"
_EFFECTS = frozenset({REQUESTED, *(spec.result for spec in COMMANDS.values() if spec.creates)})


def _told_of(event: AnyEvent) -> Asked | None:
    """What an event tells of a command that the case does not remember: of rules that nobody knows any more."""
    why, project = event.data.get("why"), event.data.get("project")
    if not isinstance(why, dict) or why.get("command") != event.causationid:
        return None
    instance = event.subject.split("/")[1]
    if event.type == "work.project.created":
        return Asked("project.create", instance)
    if event.type == REQUESTED and isinstance(project, str) and project:
        return Asked("task.create", instance, project)
    return None


def _completion(case: Case, command: str, event: AnyEvent) -> Event | None:
    """`work.project.completed`, when the project's tasks all exist and are closed, and at least one of them was completed."""
    asked = case.asked[command]
    project = case.entity(asked.made) if asked.made else None
    if asked.made is None or (project is not None and (project.entered.get("completed") or project.stage == DELETED)):
        return None
    if not asked.completed or not asked.tasks == asked.existing == asked.closed:
        return None
    told = project.data if project is not None else {}
    data = {key: told[key] for key in ("name", "customer") if key in told}
    return derived(event, "work.project.completed", asked.made, derived_id("completed", asked.made), data)


def _shadow(command: Command, event: AnyEvent) -> Event:
    data = {
        "type": command.type,
        "instance": command.instance,
        "arguments": command.arguments,
        "why": cause_of(command).model_dump(),
    }
    return derived(event, "hub.rule.shadowed", f"rule/hub/{command.rule}", derived_id("shadow", command.id), data)


def derived(event: AnyEvent, type_: str, subject: str, id_: str, data: Mapping[str, Any]) -> Event:
    """An event that follows from another, in its case and at its time: a replay makes the very same."""
    return Event(
        id=id_,
        source="/hub/processor",
        type=type_,
        subject=subject,
        time=event.time,
        recordedtime=event.recordedtime,
        dataschema=event_spec(type_).dataschema,
        partitionkey=event.case,
        correlationid=event.case,
        causationid=event.id,
        data=dict(data),
    )


def cause_of(command: Command) -> Cause:
    """Why a command was asked for, as events about its effect tell it."""
    return Cause(
        command=command.id,
        rule=command.rule,
        digest=command.digest,
        title=command.title,
        matched=command.matched,
        event=command.causationid,
        subject=command.subject,
    )
