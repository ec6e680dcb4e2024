"""The verdict as commands tell it: a line, and an exit code that scripts can rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.cli.terminal import Exit, speech

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.health.verdict import HealthStatus

MARKS = ("✔", "!", "✘", "✘")
"""By state, from well to down."""


def verdict_of(hub: RunningHub) -> HealthStatus:
    """How the hub of a home is now. Takes seconds while something is late or away."""
    from hub.health.watch import verdict_now

    return verdict_now(hub.home, lambda: hub.client, supervised=hub.runs)


def line(verdict: HealthStatus) -> str:
    """Its mark and its sentence."""
    from hub.health.words import sentence

    mark = "!" if verdict.ok and verdict.troubles else MARKS[verdict.state]
    return f"{mark} {sentence(verdict, speech.language)}"


def exit_of(verdict: HealthStatus) -> Exit:
    """Stores before the hub itself, that before its files, those before outside systems, and these before parked work."""
    if any(trouble.kind == "away" for trouble in verdict.troubles):
        return Exit.STORE
    if not verdict.ok:
        return Exit.FAILED
    if any(trouble.kind == "files" for trouble in verdict.troubles):
        return Exit.CONFIG
    if verdict.troubles:
        return Exit.CONNECTOR
    return Exit.PARKED if verdict.parked else Exit.OK
