"""The inbox board: one row per message sent to a person, by any instance; those of `builtin` can be read only here."""

from __future__ import annotations

from collections.abc import Mapping

from hub.kit.projection import Projection, Row
from projections.inbox.table import messages
from schemas.envelope import Event


def keys_of(event: Event) -> tuple[str, ...]:
    """The command that sent the message."""
    sent = event.type == "hub.command.done" and event.kind == "command" and event.data.get("type") == "message.send"
    return (event.subject,) if sent else ()


def next_message(known: Mapping[str, Row | None], event: Event) -> Mapping[str, Row | None]:
    """Add the message of a command; a command is done once, so its first event counts."""
    ((key, row),) = known.items()
    arguments = event.data.get("arguments") or {}
    if row is not None:
        return {}
    return {
        key: {
            "instance": event.subject.split("/", 2)[1],
            "case_id": event.case,
            "person": str(arguments.get("to", "")),
            "text": str(arguments.get("text", "")),
            "sent_at": event.time,
            "why": event.data.get("why"),
        }
    }


PROJECTION = Projection(
    name="inbox",
    title={"zh-CN": "收件箱", "en": "Inbox"},
    version=1,
    table=messages,
    keys=keys_of,
    fold=next_message,
)
