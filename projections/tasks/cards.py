"""A card for each task that a rule asked for or a person made: from the wish to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.projection import Projection, Row
from projections.newest import Registers, order_of
from projections.tasks.table import EMPTY, cards
from schemas.event import Event

STATES = ("requested", "parked", "created", "accepted", "started", "completed", "cancelled")
OPEN = ("requested", "parked", "created", "accepted", "started")

_STEPS = {
    "work.task.requested": "requested",
    "work.task.created": "created",
    "work.task.accepted": "accepted",
    "work.task.started": "started",
    "work.task.completed": "completed",
    "work.task.reopened": "reopened",
    "work.task.cancelled": "cancelled",
    "hub.command.parked": "parked",
    "hub.command.failed": "parked",
    "hub.parked.retried": "retried",
    "hub.parked.discarded": "discarded",
}
_FIELDS = ("title", "project", "assignee", "due", "by")
_OF_COMMANDS = ("hub.command.parked", "hub.command.failed", "hub.parked.retried", "hub.parked.discarded")


def keys_of(event: Event) -> tuple[str, ...]:
    """The card of the task, and that of the request it came of."""
    if event.type in _OF_COMMANDS:
        told = event.data.get("type", "task.create")
        return (_request_key(event),) if event.kind == "command" and told == "task.create" else ()
    if not event.type.startswith("work.task."):
        return ()
    why = event.data.get("why")
    if event.kind != "task" or not why:
        return (event.subject,)
    return (f"request/{_instance(event)}/{why['command']}", event.subject)


def next_cards(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Fold one event into the cards it concerns."""
    *before, key = keys_of(event)
    own, request = known[key], known[before[0]] if before else None
    if own is None and event.type in ("hub.parked.retried", "hub.parked.discarded"):
        return {}  # of another kind of command, which has no card
    card = Registers(own, _new(event))
    if request is not None:
        card.take_over(request)
    _tell(card, event)
    told: dict[str, Row | None] = {key: card.row(state=state_of(card, exists=event.kind == "task"))}
    if before:
        told[before[0]] = {**(request or _new(event)), "became": key}
    return told


def _new(event: Event) -> dict[str, Any]:
    return {**EMPTY, "instance": _instance(event), "case_id": event.case}


def _tell(card: Registers, event: Event) -> None:
    order = order_of(event)
    told = event.data.get("arguments") or {} if event.type in _OF_COMMANDS else event.data
    fields: dict[str, Any] = {name: value for name in _FIELDS if isinstance(value := told.get(name), str)}
    card.tell(order, {**fields, "changed_at": event.time, "why": _why(event)})
    if event.type in _STEPS:
        card.step(order, _STEPS[event.type], event.time)
    if event.type in ("hub.command.parked", "hub.command.failed"):
        card.tell(order, {"code": event.data.get("code"), "reason": event.data.get("reason")})


def _why(event: Event) -> dict[str, Any] | None:
    """The cause, with when it was asked and, once there is one, what the command's effect is."""
    why = event.data.get("why")
    if not why:
        return None
    effect = event.subject if event.kind == "task" else None
    return {**why, "effect": effect}


def state_of(card: Registers, *, exists: bool) -> str:
    """The column it stands in. A system may tell steps late or leave some out: the newest end counts, then the farthest step."""
    reached = card.reached
    again = reached("reopened")
    end = max(("completed", "cancelled"), key=reached)
    if reached(end) > again:
        return end
    for step in ("started", "accepted"):
        if reached(step) > again:
            return step
    if exists:
        return "created"
    if reached("discarded") > reached("parked"):
        return "cancelled"
    return "parked" if reached("parked") > reached("retried") else "requested"


def _instance(event: Event) -> str:
    return event.subject.split("/", 2)[1]


def _request_key(event: Event) -> str:
    return f"request/{event.subject.partition('/')[2]}"


PROJECTION = Projection(
    name="tasks",
    title={"zh-CN": "任务", "en": "Tasks"},
    version=1,
    table=cards,
    keys=keys_of,
    fold=next_cards,
)
