"""The pure part of won2task, as every peer written in Python does it: what a case becomes, what is shown of it, what is asked for.

Imports pydantic and orjson only, by way of `schemas.envelope`: the peers' own environments have these two, and not ours.
"""

from __future__ import annotations

from typing import Any

from schemas.envelope import Event, derived_id

RECENT = 16
"""Ids of events that a case remembers, to know a repeat."""
COMMANDS = ("project.create", "task.create", "task.create", "task.create", "message.send")
"""Types of what a won deal asks for; as many as acme's rule makes."""

Case = dict[str, Any]


def is_repeat(case: Case, event: Event) -> bool:
    """Has the case had this event?"""
    return event.id in case.get("seen", ())


def after(case: Case, event: Event) -> Case:
    """The case after an event."""
    return {
        "seen": [*case.get("seen", []), event.id][-RECENT:],
        "stage": event.type.rpartition(".")[2],
        "version": event.subjectversion,
        "time": event.time,
        "data": {**case.get("data", {}), **event.data},
    }


def view_of(case: Case, event: Event) -> dict[str, Any]:
    """What is shown of the entity."""
    return {"subject": event.subject, "case": event.case, "event": event.id, **case}


def commands_of(event: Event) -> list[dict[str, Any]]:
    """What a won deal above the limit asks for, of about the size of the product's commands; nothing for another event."""
    if event.type != "crm.opportunity.won" or float(event.data["amount"]) < 100_000:
        return []
    return [_command(event, type_, at) for at, type_ in enumerate(COMMANDS)]


def _command(event: Event, type_: str, at: int) -> dict[str, Any]:
    return {
        "id": derived_id("command", "won-deal-to-delivery", event.subject, event.id, str(at)),
        "type": type_,
        "instance": "pm",
        "case": event.case,
        "time": event.time,
        "causationid": event.id,
        "subject": event.subject,
        "rule": "won-deal-to-delivery",
        "title": {"zh": "赢单自动立项", "en": "A won deal becomes a delivery project"},
        "arguments": {"name": f"交付 {event.data['name']}", "customer": event.data["account"]},
        "position": at,
    }
