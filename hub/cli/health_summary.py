"""The hub's health for commands: one line, and an exit code that scripts can rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hub.cli.terminal import Exit, speech

if TYPE_CHECKING:
    from hub.cli.running_hub import RunningHub
    from hub.health.status import HealthStatus

MARKS = ("✔", "!", "✘", "✘")
"""By `HealthState`, from well to down."""


def health_of(hub: RunningHub) -> HealthStatus:
    """The current health of the hub of a home. Blocks for seconds while something is late or unreachable."""
    from hub.health.watch import current_status

    return current_status(hub.home, lambda: hub.client, supervised=hub.runs)


def line(health: HealthStatus) -> str:
    """The mark and the sentence of a health status."""
    from hub.health.words import sentence

    mark = "!" if health.ok and health.troubles else MARKS[health.state]
    return f"{mark} {sentence(health, speech.language)}"


def exit_of(health: HealthStatus) -> Exit:
    """The exit code, in order of precedence: stores, the hub itself, its files, outside systems, parked work."""
    if any(trouble.kind == "away" for trouble in health.troubles):
        return Exit.STORE
    if not health.ok:
        return Exit.FAILED
    if any(trouble.kind == "files" for trouble in health.troubles):
        return Exit.CONFIG
    if health.troubles:
        return Exit.CONNECTOR
    return Exit.PARKED if health.parked else Exit.OK
