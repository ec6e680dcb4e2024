"""The decision function: (case, event) → (case, outputs). Pure: no clock, no network, no random.

The live worker, what-if runs, rebuilds and tests all call `step`: a replay of the log gives the same outputs under the same ids.

Outputs are commands, derived events, views of entities, and changes of parked work; each is one record. Commands, events and
changes of parked work travel on `hub.commands`, so that the ledger takes them in through one consumer and in one order; a view
travels on the topic of its entity's kind.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from hub.engine.case import DELETED, Case, Entity, RequestedWork, is_newer, replace, with_task_change
from hub.errors import RejectedError
from hub.log.event_log import Outgoing
from schemas import topics
from schemas.decoding import AnyEvent
from schemas.domains.work import cause_of
from schemas.envelope import Command, Event, derived_id, promised
from schemas.registry import COMMANDS, event_spec

COMMAND_FAILED, TIMER_FIRED, COMMAND_DONE = "hub.command.failed", "hub.timer.fired", "hub.command.done"
TIMER_SET = "timer.set"
_RESULT_TYPES = frozenset({COMMAND_FAILED, TIMER_FIRED, COMMAND_DONE, *(spec.result for spec in COMMANDS.values())})


def is_end(event: AnyEvent) -> bool:
    """Whether the event ends a command, which is due until then. A parked command is still due; so is a timer until it fires."""
    command = event.causationid
    if command is None or event.type not in _RESULT_TYPES:
        return False
    if event.type in (COMMAND_FAILED, TIMER_FIRED):
        return True
    is_set = event.type == COMMAND_DONE and event.data.get("type") == TIMER_SET
    return not is_set and event.id == derived_id("result", command, "done")


HUB_KEY = b"hub"
"""The record key of outputs that belong to no case."""


_json = msgspec.json.Encoder().encode
"""A third cheaper than orjson.dumps for freshly decoded texts, and encodes integers of any size, which events may hold."""


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
        entity = self.entity
        value = _ViewRecord(
            subject=entity.ref,
            case=self.case,
            stage=entity.stage,
            version=entity.version,
            time=entity.time,
            event=self.event,
            data=entity.data,
            sources=entity.sources,
        )
        return Outgoing(topic.name, entity.ref.encode(), _json(value))


class _ViewRecord(msgspec.Struct, frozen=True, gc=False):
    """A view's record value; JSON keeps the order of these fields."""

    subject: str
    case: str
    stage: str | None
    version: str
    time: str
    event: str
    data: Mapping[str, Any]
    sources: Mapping[str, tuple[str, str]]


class EmitCommand(msgspec.Struct, frozen=True, gc=False):
    """A command for the executor."""

    command: Command

    def record(self) -> Outgoing:
        return Outgoing(topics.COMMANDS.name, self.command.case.encode(), _json(self.command.__dict__))


class EmitEvent(msgspec.Struct, frozen=True, gc=False):
    """A derived event: it enters the log through the outbox, as every event does."""

    event: Event

    def record(self) -> Outgoing:
        value = {"record": "event", "event": self.event.model_dump(exclude_none=True)}
        return Outgoing(topics.COMMANDS.name, self.event.case.encode(), _json(value))


@dataclass(frozen=True)
class ParkedEvent:
    """An event that cannot be processed, for the ledger's list of parked work (dead letters)."""

    ref: str
    case: str | None
    subject: str | None
    code: str
    seen: dict[str, Any]
    place: str | None
    rule: str | None
    body: bytes
    mark: int | None = None
    """Log offset of the record that failed, or of the retry: the same failure reported again has the same mark."""

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
        return Outgoing(topics.COMMANDS.name, self.case.encode() if self.case else HUB_KEY, _json(value))

    def fields(self) -> dict[str, str]:
        """Fields for a log line, as `HubError.fields`."""
        fields = RejectedError(self.code, **self.seen).fields()
        return {**fields, **({"place": self.place} if self.place else {}), "fix": f"{fields['fix']} · hub parked"}


@dataclass(frozen=True)
class SettledEvent:
    """A parked event is done or discarded."""

    ref: str
    case: str
    state: str

    def record(self) -> Outgoing:
        value = {"record": "settled", "ref": self.ref, "state": self.state}
        return Outgoing(topics.COMMANDS.name, self.case.encode(), _json(value))


Output = View | EmitCommand | EmitEvent | ParkedEvent | SettledEvent


MAX_ENTITIES = 500_000
"""Entities of one case. An event with one more is parked, and the case waits."""
MAX_COMMANDS = 5_000
"""Commands for one event, of all rules together."""


class RuleDecisions(Protocol):
    """What the rules decide on one event."""

    @property
    def live(self) -> Sequence[Command]:
        """Commands to execute, in order."""

    @property
    def shadow(self) -> Sequence[Command]:
        """Commands that rules in shadow mode would have requested."""

    @property
    def fired(self) -> Sequence[str]:
        """The rules that fired, live or in shadow mode, on the entity's current stage: each fires once per entry of a stage."""


class StepRules(Protocol):
    """The rule set, as `step` uses it."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> RuleDecisions:
        """Evaluate the rules on an event; pure. Raises RejectedError when a rule cannot be evaluated on it.

        A rule that has already `fired` in the current stage of the event's entity is not evaluated again.
        """


class Step(msgspec.Struct, frozen=True, gc=False):
    """The case after an event, and the outputs to send before that case is stored."""

    case: Case
    outputs: tuple[Output, ...] = ()


def step(case: Case | None, event: AnyEvent, rules: StepRules) -> Step:
    """Fold one event into its case and decide on the outputs.

    `case` is the state stored under the event's case id, None before its first event. A duplicate event gives the same case and no
    outputs. Raises RejectedError when a rule fails on the event; the case is then unchanged.
    """
    if case is not None and case.has_seen(event):
        return Step(case)
    return decide(case or opened_by(event), event, rules)


def opened_by(event: AnyEvent) -> Case:
    """A new case, opened by this event."""
    return Case(id=event.case, opened_by=event.subject, spans=())


def decide(case: Case, event: AnyEvent, rules: StepRules, *, remembered: bool = False) -> Step:
    """As `step`, for an event that is known to be new, or that was parked and is already noted as folded (`remembered`)."""
    folded = case.with_entity(event) if remembered else case.after(event)
    if folded.count > case.count and folded.count > MAX_ENTITIES:
        raise RejectedError("HUB-E6024", case=case.id, most=MAX_ENTITIES)
    after, completed = _with_project_progress(case, folded, event)
    if after.due and is_end(event):
        after = replace(after, due=after.due - 1)
    view = View(after.entities[event.subject], case.id, event.id)
    occurrence = occurrence_of(case, after, event)
    if occurrence is None:
        return Step(after, (view, *completed))
    decided = rules.commands_for(after, event, occurrence)
    if not decided.live and not decided.shadow and not decided.fired:
        return Step(after, (view, *completed))
    if len(decided.live) + len(decided.shadow) > MAX_COMMANDS:
        raise RejectedError("HUB-E6026", most=MAX_COMMANDS)
    commands = [EmitCommand(command) for command in decided.live]
    shadowed = [EmitEvent(_shadowed_event(command, event)) for command in decided.shadow]
    fired = after.with_fired(event, decided.fired) if decided.fired else after
    return Step(_with_due_commands(fired, decided.live), (view, *commands, *shadowed, *completed))


def occurrence_of(before: Case, after: Case, event: AnyEvent) -> str | None:
    """What command ids derive from: the stage with the number of this entry (`won#1`), or the event id.

    A further event of the current stage belongs to the same entry: a rule that has not fired in it may fire now. None for an event
    of a stage that the entity has left, or of an older state: no rule is evaluated on those.
    """
    stage = event_spec(event.type).stage
    if stage is None:
        return event.id
    known, entity = before.entity(event.subject), after.entities[event.subject]
    times = entity.entered.get(stage, 0)
    if known is not None and known.entered.get(stage, 0) == times:
        is_current = entity.stage == stage and is_newer(known, event)
        return f"{stage}#{times}" if is_current else None
    return f"{stage}#{times}"


def _with_due_commands(case: Case, commands: Sequence[Command]) -> Case:
    """Count the commands as due, and remember the projects and tasks among them: a project is completed when all its tasks are."""
    new = dict[str, RequestedWork]()
    for command in commands:
        project = promised(command.arguments.get("project"))
        is_task = command.type == "task.create" and project is not None
        if not (is_task or command.type == "project.create") or command.id in new or case.requested_work(command.id):
            continue
        new[command.id] = RequestedWork(command.type, command.instance, project)
        owner = (new.get(project) or case.requested_work(project)) if project is not None else None
        if project is not None and owner is not None:
            new[project] = replace(owner, tasks=owner.tasks + 1)
    due = case.due + len({command.id for command in commands})
    if not new:
        return case if due == case.due else replace(case, due=due)
    return replace(case, requested={**case.requested, **new}, due=due)


def _with_project_progress(case: Case, after: Case, event: AnyEvent) -> tuple[Case, Sequence[EmitEvent]]:
    """The case with the counters of its requested projects updated, and a completion event for each that is now completed.

    Counters change with an event about one of the projects' tasks, or with the event that shows a command's effect.
    """
    entity, work = after.entities[event.subject], _work_created(after, event)
    if not entity.tasks_of and work is None:
        return after, ()
    changed, before = dict[str, RequestedWork](), case.entity(event.subject)
    for one, times in entity.tasks_of.items():
        owner = after.requested_work(one)
        if owner is not None:
            changed[one] = with_task_change(owner, before, entity, times=times)
    if work is not None:
        command, project = str(event.causationid), work.project
        is_made = event.type != TASK_REQUESTED
        changed[command] = replace(changed.get(command, work), made=event.subject) if is_made else work
        owner = (changed.get(project) or after.requested_work(project)) if project else None
        if project and not is_made:
            owner = owner or RequestedWork("project.create", work.instance)  # its own event is still to come
            changed[project] = replace(owner, tasks=owner.tasks + 1)
        elif project and owner is not None:
            changed[project] = with_task_change(owner, None, entity, existing=1)
            links = {**entity.tasks_of, project: entity.tasks_of.get(project, 0) + 1}
            after = after.with_known(replace(entity, tasks_of=links))
    after = replace(after, requested={**after.requested, **changed})
    projects = [command for command, each in changed.items() if each.type == "project.create"]
    return after, [EmitEvent(completed) for each in projects if (completed := _completion(after, each, event))]


def _work_created(case: Case, event: AnyEvent) -> RequestedWork | None:
    """The requested work whose first effect this event shows; None for any other event."""
    if event.causationid is None or event.type not in _EFFECTS:
        return None
    known = case.requested_work(event.causationid)
    if known is None:
        return _work_from_event(event)
    return None if known.made or event.type == TASK_REQUESTED else known


TASK_REQUESTED = "work.task.requested"
_EFFECTS = frozenset({TASK_REQUESTED, *(spec.result for spec in COMMANDS.values() if spec.creates)})


def _work_from_event(event: AnyEvent) -> RequestedWork | None:
    """The work of a command that the case does not remember, as of a rule that no longer exists: read from the event's `why`."""
    why, project = event.data.get("why"), event.data.get("project")
    if not isinstance(why, dict) or why.get("command") != event.causationid:
        return None
    instance = event.subject.split("/")[1]
    if event.type == "work.project.created":
        return RequestedWork("project.create", instance)
    if event.type == TASK_REQUESTED and isinstance(project, str) and project:
        return RequestedWork("task.create", instance, project)
    return None


def _completion(case: Case, command: str, event: AnyEvent) -> Event | None:
    """`work.project.completed` once all of the project's tasks exist and are closed, and at least one is completed."""
    work = case.requested[command]
    project = case.entity(work.made) if work.made else None
    if work.made is None or (project is not None and (project.entered.get("completed") or project.stage == DELETED)):
        return None
    if not work.completed or not work.tasks == work.existing == work.closed:
        return None
    known = project.data if project is not None else {}
    data = {key: known[key] for key in ("name", "customer") if key in known}
    return derived_event(event, "work.project.completed", work.made, derived_id("completed", work.made), data)


def _shadowed_event(command: Command, event: AnyEvent) -> Event:
    data = {
        "type": command.type,
        "instance": command.instance,
        "arguments": command.arguments,
        "why": cause_of(command).model_dump(),
    }
    return derived_event(event, "hub.rule.shadowed", f"rule/hub/{command.rule}", derived_id("shadow", command.id), data)


def derived_event(event: AnyEvent, type_: str, subject: str, id_: str, data: Mapping[str, Any]) -> Event:
    """An event caused by another, with its case and its time, so that a replay derives the same one."""
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
