"""A card for each task that a rule asked for or a person made: from the wish to its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.projection import Projection, Row
from projections.newest import Registers, order_of
from projections.tasks.steps import NOTES, OF_COMMANDS, STEPS, TOLD, instance_of, request_of, state_of
from projections.tasks.table import EMPTY, cards
from schemas.event import Event

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
    card = Registers(own, _new(event))
    if request is not None:
        card.take_over(request)
    _tell(card, event)
    told: dict[str, Row | None] = {key: card.row(state=state_of(card, exists=event.kind == "task"))}
    if before:
        told[before[0]] = {**(request or _new(event)), "became": key}
    return told


def _new(event: Event) -> dict[str, Any]:
    return {**EMPTY, "instance": instance_of(event), "case_id": event.case}


def _tell(card: Registers, event: Event) -> None:
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
