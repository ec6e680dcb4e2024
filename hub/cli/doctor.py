"""`hub doctor`: is everything there that the hub needs, and what to do about what is not."""

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
    """Check the machine and the home; a line to mend each thing that is wrong. Exit 1 when something fails, 5 for a store."""
    fixed = mend(home) if fix else []
    for done in () if json else fixed:
        say(f"  ✔ {done}")
    checks = []
    for check in examined(home):
        checks.append(check)
        if not json:
            say(f"  {MARKS[check.level]} {check.level}  {check.check:<12} {check.said}")
            if check.fix:
                say(f"          → {runnable(check.fix)}")
    failed = {check.check for check in checks if check.level == "FAIL"}
    if json:
        answer({"ok": not failed, "fixed": fixed, "checks": [asdict(check) for check in checks]})
    if failed:
        raise typer.Exit(Exit.STORE if failed & STORES and failed <= {*STORES, "health"} else Exit.FAILED)


def mend(path: Path) -> list[str]:
    """Mend what can be mended safely; what that was. Nothing in a folder that is no home."""
    from hub.cli.doctor_fixes import mended
    from hub.cli.running_hub import RunningHub

    try:
        return list(mended(RunningHub.of(path)))
    except HubError:
        return []


STORES = {"broker", "topics", "ledger", "boards"}
"""Checks that fail when a store is away; the hub's health fails with it."""
MARKS = {"PASS": "✔", "WARN": "!", "FAIL": "✘"}


def examined(path: Path) -> Iterator[Check]:
    """Every check, one after the other; those of the home only where there is one."""
    from hub.cli import doctor_checks
    from hub.cli.running_hub import RunningHub

    yield doctor_checks.python()
    yield doctor_checks.system()
    try:
        hub = RunningHub.of(path)  # from here on the clock is the home's
    except HubError as error:
        yield doctor_checks.clock()
        yield doctor_checks.of_error("home", error)
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
