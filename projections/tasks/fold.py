"""The tasks board: one card per task that a rule requested or a person created, from its request to its end.

Events map to steps of a task; the steps reached, by their source times, determine the state (column) of the card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from hub.kit.last_writer_wins import LastWriterWins, order_of
from hub.kit.projection import Projection, Row
from projections.tasks.table import EMPTY, cards
from schemas.envelope import Event
from schemas.registry import EVENTS

STATES = ("requested", "parked", "created", "accepted", "started", "completed", "cancelled")
OPEN = ("requested", "parked", "created", "accepted", "started")

STEPS = {
    "work.task.requested": "requested",
    "work.task.created": "created",
    "work.task.accepted": "accepted",
    "work.task.started": "started",
    "work.task.completed": "completed",
    "work.task.reopened": "reopened",
    "work.task.cancelled": "cancelled",
    "work.task.deleted": "deleted",
    "hub.command.parked": "parked",
    "hub.command.failed": "parked",
    "hub.parked.retried": "retried",
    "hub.parked.discarded": "discarded",
}
PARKED_NOTES = ("hub.parked.retried", "hub.parked.discarded")
TASK_TYPES = frozenset(type_ for type_ in EVENTS if type_.startswith("work.task."))
"""Only types of the catalogue: their data is validated, that of other types may be anything."""
COMMAND_TYPES = ("hub.command.parked", "hub.command.failed", *PARKED_NOTES)


def request_of(event: Event) -> str | None:
    """The request that an event of a task, or of its command, belongs to; None when there was none."""
    if event.kind == "request" and event.type in TASK_TYPES:
        return event.subject
    if event.kind == "command" and event.type in COMMAND_TYPES:
        _, _, command = event.subject.partition("/")[2].partition("/")
        command_type = event.data.get("type", "task.create")  # a parked note does not name the type
        return _request(event, command) if command and command_type == "task.create" else None
    why = event.data.get("why")
    return _request(event, why["command"]) if event.kind == "task" and event.type in TASK_TYPES and why else None


def instance_of(event: Event) -> str:
    """The instance that the subject belongs to."""
    return event.subject.split("/", 2)[1]


def _request(event: Event, command: str) -> str:
    return f"request/{instance_of(event)}/{command}"


def state_of(card: LastWriterWins, *, exists: bool) -> str:
    """The card's column; `deleted` for no column. A system may report steps late or omit some: the latest end step counts,
    then the farthest step.
    """
    if card.is_last("deleted", [mark for mark in card.marks if mark != "@deleted"]):
        return "deleted"
    end = "cancelled" if card.after("cancelled", "completed") else "completed"
    if card.after(end, "reopened"):
        return end
    for step in ("started", "accepted"):
        if card.after(step, "reopened"):
            return step
    if exists:
        return "created"
    if card.after("discarded", "parked"):
        return "cancelled"
    return "parked" if card.after("parked", "retried") else "requested"


ACTIONS = {"accept": "accepted", "start": "started", "finish": "completed", "reopen": "reopened"}
"""Action of a person on a task of the builtin connector → the step that it records."""
_OFFERS = {
    "created": ("accept", "start", "finish"),
    "accepted": ("start", "finish"),
    "started": ("finish",),
    "completed": ("reopen",),
    "cancelled": ("reopen",),
}


def offers(state: str) -> tuple[str, ...]:
    """The actions available in this state."""
    return _OFFERS.get(state, ())


def steps_digest(marks: Mapping[str, str]) -> str:
    """A digest of a card's steps as shown to a reader: it detects an action on an outdated view of the card."""
    steps = sorted(item for item in marks.items() if item[0].startswith("@"))
    return hashlib.sha256(repr(steps).encode()).hexdigest()[:16]


_FIELDS = ("title", "project", "assignee", "due", "by")


def keys_of(event: Event) -> tuple[str, ...]:
    """The card of the task, preceded by the card of its request."""
    request = request_of(event)
    if event.type in COMMAND_TYPES:
        return (request,) if request else ()
    if event.type not in TASK_TYPES or event.kind not in ("task", "request"):
        return ()
    return (request, event.subject) if request and request != event.subject else (event.subject,)


def next_cards(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Fold one event into the cards it concerns."""
    *before, key = keys_of(event)
    own, request = known[key], known[before[0]] if before else None
    if own is None and event.type in PARKED_NOTES:
        return {}  # a command of another type: it has no card
    card = LastWriterWins(own, _new(event))
    if request is not None:
        card.take_over(request)
    _apply(card, event)
    changed: dict[str, Row | None] = {key: card.row(state=state_of(card, exists=event.kind == "task"))}
    if before:
        changed[before[0]] = {**(request or _new(event)), "became": key}
    return changed


def _new(event: Event) -> dict[str, Any]:
    return {**EMPTY, "instance": instance_of(event), "case_id": event.case}


def _apply(card: LastWriterWins, event: Event) -> None:
    order = order_of(event)
    if event.type == "work.task.deleted":
        card.step(order, "deleted", event.time)
        return
    values = event.data.get("arguments") or {} if event.type in COMMAND_TYPES else event.data
    fields: dict[str, Any] = {name: value for name in _FIELDS if isinstance(value := values.get(name), str)}
    card.write(order, {**fields, "changed_at": event.time, "why": _why(event)})
    if event.type in TASK_TYPES:
        card.clear(order, [name for name in event.clears or () if name in _FIELDS and event.data.get(name) is None])
    if event.type in STEPS:
        card.step(order, STEPS[event.type], event.time)
    if event.type in ("hub.command.parked", "hub.command.failed"):
        card.write(order, {"code": event.data.get("code"), "reason": event.data.get("reason")})


def _why(event: Event) -> dict[str, Any] | None:
    """The cause of the task and, once it exists, the effect of the command."""
    why = event.data.get("why")
    return {**why, "effect": event.subject if event.kind == "task" else None} if why else None


PROJECTION = Projection(
    name="tasks",
    title={"zh-CN": "任务", "en": "Tasks"},
    version=2,
    table=cards,
    keys=keys_of,
    fold=next_cards,
)
