"""`hub doctor`: checks everything that the hub needs, and names the fix for each failure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, runnable, say
from hub.errors import HubError

if TYPE_CHECKING:
    from hub.cli.doctor_checks import Check


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help="体检：环境、端口、密钥、日志、台账 · is everything there that the hub needs")(doctor)


def doctor(
    home: HomeOption = HERE,
    json: JsonOption = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="能安全修好的先修好 · mend first what can be mended safely")
    ] = False,
) -> None:
    """Check the machine and the home; print a fix for each failure. Exit 1 when a check fails, 5 when only stores do."""
    fixed = apply_fixes(home) if fix else []
    for done in () if json else fixed:
        say(f"  ✔ {done}")
    checks = []
    for check in run_checks(home):
        checks.append(check)
        if not json:
            say(f"  {LEVEL_MARKS[check.level]} {check.level}  {check.check:<12} {check.said}")
            if check.fix:
                say(f"          → {runnable(check.fix)}")
    failed = {check.check for check in checks if check.level == "FAIL"}
    if json:
        answer({"ok": not failed, "fixed": fixed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(Exit.STORE if failed & STORE_CHECKS and failed <= {*STORE_CHECKS, "health"} else Exit.FAILED)


def apply_fixes(path: Path) -> list[str]:
    """Apply the safe fixes and describe them; nothing in a folder that is not a home."""
    from hub.cli.doctor_fixes import apply_safe_fixes
    from hub.cli.running_hub import RunningHub

    try:
        return list(apply_safe_fixes(RunningHub.of(path)))
    except HubError:
        return []


STORE_CHECKS = {"broker", "topics", "ledger", "boards"}
"""Checks that fail while a store is unavailable; the health check then fails too."""
LEVEL_MARKS = {"PASS": "✔", "WARN": "!", "FAIL": "✘"}


def run_checks(path: Path) -> Iterator[Check]:
    """Run every check in turn; those of the home only if there is one."""
    from hub.cli import doctor_checks
    from hub.cli.running_hub import RunningHub

    yield doctor_checks.python()
    yield doctor_checks.system()
    try:
        hub = RunningHub.of(path)  # from here on times are shown in the home's zone
    except HubError as error:
        yield doctor_checks.clock()
        yield doctor_checks.failed_check("home", error)
        return
    yield doctor_checks.clock()
    if hub.home.config.kafka.embedded:
        yield doctor_checks.java()
        yield doctor_checks.jars()
    yield doctor_checks.disk(hub.home.data)
    yield doctor_checks.writable(hub)
    yield from doctor_checks.ports(hub)
    yield doctor_checks.settings(hub)
    yield doctor_checks.secrets(hub)
    yield doctor_checks.calendar(hub)
    yield from doctor_checks.broker(hub)
    yield from doctor_checks.ledger(hub)
    yield doctor_checks.boards(hub)
    yield doctor_checks.health(hub)
