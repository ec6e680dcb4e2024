"""A card for each task that a rule asked for or a person made: from the wish to its end.

The steps of a task: which event tells which, which request it came of, and where all of them leave it.
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
NOTES = ("hub.parked.retried", "hub.parked.discarded")
TOLD = frozenset(type_ for type_ in EVENTS if type_.startswith("work.task."))
"""Only types of the catalogue: their data is checked, that of others may be anything."""
OF_COMMANDS = ("hub.command.parked", "hub.command.failed", *NOTES)


def request_of(event: Event) -> str | None:
    """The request that a task's event, or news of its command, belongs to; None when there was none."""
    if event.kind == "request" and event.type in TOLD:
        return event.subject
    if event.kind == "command" and event.type in OF_COMMANDS:
        _, _, command = event.subject.partition("/")[2].partition("/")
        made = event.data.get("type", "task.create")  # a note does not say
        return _request(event, command) if command and made == "task.create" else None
    why = event.data.get("why")
    return _request(event, why["command"]) if event.kind == "task" and event.type in TOLD and why else None


def instance_of(event: Event) -> str:
    """The instance that the subject belongs to."""
    return event.subject.split("/", 2)[1]


def _request(event: Event, command: str) -> str:
    return f"request/{instance_of(event)}/{command}"


def state_of(card: LastWriterWins, *, exists: bool) -> str:
    """The column it stands in, `deleted` for none. A system may tell steps late or leave some out: the newest end counts,
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
"""What a person can do with a task of the hub's own, and the step that tells of it."""
_OFFERS = {
    "created": ("accept", "start", "finish"),
    "accepted": ("start", "finish"),
    "started": ("finish",),
    "completed": ("reopen",),
    "cancelled": ("reopen",),
}


def offers(state: str) -> tuple[str, ...]:
    """The actions that make sense now."""
    return _OFFERS.get(state, ())


def seen(marks: Mapping[str, str]) -> str:
    """What a reader has seen of a card's steps, in short: an action on an older look at it is told from one on this."""
    steps = sorted(item for item in marks.items() if item[0].startswith("@"))
    return hashlib.sha256(repr(steps).encode()).hexdigest()[:16]


_FIELDS = ("title", "project", "assignee", "due", "by")


def keys_of(event: Event) -> tuple[str, ...]:
    """The card of the task, and before it that of the request it came of."""
    request = request_of(event)
    if event.type in OF_COMMANDS:
        return (request,) if request else ()
    if event.type not in TOLD or event.kind not in ("task", "request"):
        return ()
    return (request, event.subject) if request and request != event.subject else (event.subject,)


def next_cards(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Fold one event into the cards it concerns."""
    *before, key = keys_of(event)
    own, request = known[key], known[before[0]] if before else None
    if own is None and event.type in NOTES:
        return {}  # of another kind of command, which has no card
    card = LastWriterWins(own, _new(event))
    if request is not None:
        card.take_over(request)
    _tell(card, event)
    told: dict[str, Row | None] = {key: card.row(state=state_of(card, exists=event.kind == "task"))}
    if before:
        told[before[0]] = {**(request or _new(event)), "became": key}
    return told


def _new(event: Event) -> dict[str, Any]:
    return {**EMPTY, "instance": instance_of(event), "case_id": event.case}


def _tell(card: LastWriterWins, event: Event) -> None:
    order = order_of(event)
    if event.type == "work.task.deleted":
        card.step(order, "deleted", event.time)
        return
    told = event.data.get("arguments") or {} if event.type in OF_COMMANDS else event.data
    fields: dict[str, Any] = {name: value for name in _FIELDS if isinstance(value := told.get(name), str)}
    card.tell(order, {**fields, "changed_at": event.time, "why": _why(event)})
    if event.type in TOLD:
        card.clear(order, [name for name in event.clears or () if name in _FIELDS and event.data.get(name) is None])
    if event.type in STEPS:
        card.step(order, STEPS[event.type], event.time)
    if event.type in ("hub.command.parked", "hub.command.failed"):
        card.tell(order, {"code": event.data.get("code"), "reason": event.data.get("reason")})


def _why(event: Event) -> dict[str, Any] | None:
    """The cause and, once there is one, what the command's effect is."""
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
