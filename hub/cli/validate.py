"""`hub validate`: every mistake of a home, with its place, its line and what was probably meant. Calls nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, as_json, say, speech, text
from hub.errors import HubError
from hub.rules.complaints import width

LONGEST = 160
"""Characters of a source line that are shown."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate", help="检查设置、规则、人员，离线 · check settings, rules and people, offline")(validate)


def validate(home: HomeOption = HERE, json: JsonOption = False) -> None:
    """Check hub.yaml, people.yaml, calendar.yaml, the rules, their trials and every connector's settings. Exit 3 on errors."""
    found = list(findings(home))
    errors = [error for error, is_error in found if is_error]
    if json:
        told = [{**as_json(error), "severity": "error" if bad else "warning", **_at(error)} for error, bad in found]
        answer({"ok": not errors, "errors": len(errors), "warnings": len(found) - len(errors), "findings": told})
    else:
        for error, _ in found:
            for line in lines(home, error):
                say(line)
        say(summary(len(errors), len(found) - len(errors)))
    if errors:
        raise typer.Exit(Exit.CONFIG)


def findings(home: Path) -> Iterator[tuple[HubError, bool]]:
    """Every finding, and whether it is an error; raises FatalError for a folder that is no home."""
    from hub.cli.other_programs import ask, error_of

    for told in ask("connectors.checking", ["validate", "--home", str(home)]):
        if "error" in told:
            raise error_of(told["error"])
        if "finding" in told:
            yield error_of(told["finding"]), told["finding"]["is_error"]


def _at(error: HubError) -> dict[str, str | int | None]:
    place = error.place
    return {
        "file": place.file if place else None,
        "line": place.line if place else 0,
        "column": place.column if place else 0,
    }


def lines(home: Path, error: HubError) -> Iterator[str]:
    """A finding as ux.md wants it: place, code, what was seen; the source line with a caret; what to do."""
    place = f"{error.place}  " if error.place else ""
    said = error.message(speech.language)
    yield from f"{place}{error.code}  {said}".split("\n")
    if "\n" not in said:  # else it points at the place itself
        yield from _source(home, error)
    yield f"  → {error.fix(speech.language)}"


def _source(home: Path, error: HubError) -> Iterator[str]:
    """The line that the error is in, and a caret beneath the column."""
    place = error.place
    if place is None or not place.line:
        return
    try:
        source = (home / place.file).read_text("utf-8-sig").splitlines()[place.line - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        return
    start = max(0, place.column - 1 - LONGEST // 2)
    shown, number = source[start : start + LONGEST].expandtabs(1), f"{place.line:>4} | "
    before = shown[: place.column - 1 - start]
    yield f"{number}{shown}"
    yield f"{' ' * (len(number) - 2)}| {' ' * width(before)}^"


def summary(errors: int, warnings: int) -> str:
    """The last line."""
    if not errors and not warnings:
        return text("✔ 没有发现问题", "✔ nothing is wrong")
    mark = "✘" if errors else "✔"
    return f"{mark} " + text("{} 处错误，{} 处提醒", "{} errors, {} warnings").format(errors, warnings)
