"""All decisions: what one event does to its case, and what should be done about it. No clock, no network, no random.

The live worker, what-if runs, rebuilds and tests all call `step`; whoever replays a log gets the same outputs, under the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from hub.case import DELETED, Asked, Case, altered, is_newer
from hub.outputs import Ask, Derive, Output, View
from schemas.catalog import COMMANDS, event_spec
from schemas.event import Command, Event, derived_id, promised
from schemas.recorded import AnyEvent
from schemas.work import Cause

CLOSED = {"completed", "cancelled", DELETED}


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


class Rules(Protocol):
    """The rules, as a step sees them."""

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decided:
        """What follows from an event; pure. Raises RejectedError when a rule cannot be evaluated on it.

        A rule that is among those that have `fired` in the stage of the event's entity is not asked again.
        """


class Step(msgspec.Struct, frozen=True, gc=False):
    """The case after an event, and what to send before that case is kept."""

    case: Case
    outputs: tuple[Output, ...] = ()


def step(case: Case | None, event: AnyEvent, rules: Rules) -> Step:
    """Fold one event into its case and say what should be done about it.

    `case` is what was remembered under the event's case id, None before its first event. An event that the case has seen gives
    no outputs and the same case. Raises RejectedError when a rule fails on it; the case is then as it was.
    """
    if case is not None and case.has_seen(event):
        return Step(case)
    return decide(case or opened_by(event), event, rules)


def opened_by(event: AnyEvent) -> Case:
    """A new case, named after what opened it."""
    return Case(id=event.case, opened_by=event.subject)


def decide(case: Case, event: AnyEvent, rules: Rules, *, remembered: bool = False) -> Step:
    """As `step`, for an event that is known to be new to the case, or that was parked and is `remembered` since."""
    after = _made(case.with_entity(event) if remembered else case.after(event), event)
    view = View(after.entities[event.subject], case.id, event.id)
    occurrence = occurrence_of(case, after, event)
    if occurrence is None:
        return Step(after, (view, *_completed(after, event)))
    decided = rules.commands_for(after, event, occurrence)
    if not decided.live and not decided.shadow and not decided.fired:
        return Step(after, (view, *_completed(after, event)))
    asked = [Ask(command) for command in decided.live]
    shadowed = [Derive(_shadow(command, event)) for command in decided.shadow]
    done = after.with_fired(event, decided.fired) if decided.fired else after
    return Step(_asking(done, decided.live), (view, *asked, *shadowed, *_completed(after, event)))


def occurrence_of(before: Case, after: Case, event: AnyEvent) -> str | None:
    """What makes this event's commands its own: the how-manieth entry of a stage, or the event itself.

    News of a stage that the entity is in are of the same entry: a rule that has not asked in it may ask now. None for news of
    a stage that was left, or of an older state: no rule answers those.
    """
    stage = event_spec(event.type).stage
    if stage is None:
        return event.id
    known, entity = before.entities.get(event.subject), after.entities[event.subject]
    times = entity.entered.get(stage, 0)
    if known is not None and known.entered.get(stage, 0) == times:
        of_now = entity.stage == stage and is_newer(known, event)
        return f"{stage}#{times}" if of_now else None
    return f"{stage}#{times}"


def _asking(case: Case, commands: Sequence[Command]) -> Case:
    """Remember the projects and their tasks that were asked for: a project is completed when all of these are."""
    new = {}
    for command in commands:
        project = promised(command.arguments.get("project"))
        if command.type == "project.create" or (command.type == "task.create" and project):
            new[command.id] = Asked(command.type, command.instance, project)
    return altered(case, asked={**case.asked, **new}) if new else case


def _made(case: Case, event: AnyEvent) -> Case:
    """Note which entity came of a command that the case asked for."""
    if event.causationid is None or event.type not in _EFFECTS:
        return case
    known = case.asked.get(event.causationid)
    asked = known or _told_of(event)
    if asked is None or asked.made or (known is not None and event.type == REQUESTED):
        return case
    made = None if event.type == REQUESTED else event.subject
    return altered(case, asked={**case.asked, event.causationid: altered(asked, made=made)})


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


def _completed(case: Case, event: AnyEvent) -> tuple[Derive, ...]:
    """`work.project.completed`, when this event closes the last open task of a project of the case."""
    if event_spec(event.type).stage not in {*CLOSED, "open"} or event.kind not in {"task", "project"}:
        return ()
    projects = [key for key, asked in case.asked.items() if asked.type == "project.create"]
    return tuple(Derive(_completion(case, project, event)) for project in projects if _is_complete(case, project))


def _is_complete(case: Case, project: str) -> bool:
    made = case.asked[project].made
    if made is None or (made in case.entities and case.entities[made].entered.get("completed")):
        return False
    tasks = [asked.made for asked in case.asked.values() if asked.project == project]
    stages = [case.entities[task].stage if task in case.entities else None for task in tasks if task]
    return len(stages) == len(tasks) and "completed" in stages and all(stage in CLOSED for stage in stages)


def _completion(case: Case, project: str, event: AnyEvent) -> Event:
    ref = str(case.asked[project].made)
    told = case.entities[ref].data
    data = {key: told[key] for key in ("name", "customer") if key in told}
    return derived(event, "work.project.completed", ref, derived_id("completed", ref), data)


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
