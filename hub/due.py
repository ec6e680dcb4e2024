"""Which events tell of the end of a command that a case has asked for: until then the command is due. Pure."""

from __future__ import annotations

from schemas.catalog import COMMANDS
from schemas.event import derived_id
from schemas.recorded import AnyEvent

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
