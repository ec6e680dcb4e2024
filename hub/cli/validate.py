"""`hub validate`: every mistake in a home's files, with its place, its line and the likely intention. Works offline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from hub.cli.terminal import HERE, Exit, HomeOption, JsonOption, answer, as_json, runnable, say, speech, text
from hub.errors import HubError
from hub.expressions.complaints import width

MAX_LINE_CHARS = 160
"""How much of a source line is shown."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("validate", help="检查设置、规则、人员，离线 · check settings, rules and people, offline")(validate)


def validate(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            exists=True,
            help="只看这些文件或文件夹，或别的主目录 · only these files or folders, or other homes",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="提醒也算错误 · warnings count as errors")] = False,
    home: HomeOption = HERE,
    json: JsonOption = False,
) -> None:
    """Check hub.yaml, people.yaml, calendar.yaml, the rules, their trials and every connector's settings. Exit 3 on errors."""
    checked = [(where, *each) for where, wanted in _homes(paths or [], home).items() for each in _found(where, wanted)]
    found = [(where, error, bad) for where, error, bad, is_wanted in checked if is_wanted]
    errors, elsewhere = sum(bad for *_, bad in found), len(checked) - len(found)
    if json:
        shown = [{**as_json(error), "severity": "error" if bad else "warning", **_at(error)} for _, error, bad in found]
        answer(
            {
                "ok": not errors,
                "errors": errors,
                "warnings": len(found) - errors,
                "elsewhere": elsewhere,
                "findings": shown,
            }
        )
    else:
        for where, error, _ in found:
            for line in lines(where, error):
                say(line)
        say(summary(errors, len(found) - errors, elsewhere))
    if errors or (strict and found):
        raise typer.Exit(Exit.CONFIG)


def _homes(paths: Sequence[Path], home: Path) -> dict[Path, list[Path]]:
    """Home → the requested paths in it. A path outside every home is checked against `home`; an empty list means all files."""
    wanted: dict[Path, list[Path]] = {} if paths else {home: []}
    for path in paths:
        folders = (path.resolve(), *path.resolve().parents)
        where = next((folder for folder in folders if (folder / "hub.yaml").is_file()), home)
        wanted.setdefault(where, []).append(path.resolve())
    return wanted


def _found(home: Path, wanted: Sequence[Path]) -> Iterator[tuple[HubError, bool, bool]]:
    """The findings of a home: the error, whether it counts as one, and whether its file was requested. All files are checked."""
    for error, is_error in findings(home):
        file = (home / error.place.file).resolve() if error.place else home.resolve()
        yield error, is_error, not wanted or any(file.is_relative_to(path) for path in wanted)


def findings(home: Path) -> Iterator[tuple[HubError, bool]]:
    """Every finding, and whether it is an error; raises FatalError for a folder that is no home."""
    from hub.cli.other_programs import ask, error_of

    for message in ask("hub.ops.connector_checks", ["validate", "--home", str(home)]):
        if "error" in message:
            raise error_of(message["error"])
        if "finding" in message:
            yield error_of(message["finding"]), message["finding"]["is_error"]


def _at(error: HubError) -> dict[str, str | int | None]:
    place = error.place
    return {
        "file": place.file if place else None,
        "line": place.line if place else 0,
        "column": place.column if place else 0,
    }


def lines(home: Path, error: HubError) -> Iterator[str]:
    """A finding for people: place, code, message; the source line with a caret; what to do."""
    place = f"{error.place}  " if error.place else ""
    message = error.message(speech.language)
    yield from f"{place}{error.code}  {message}".split("\n")
    if "\n" not in message:  # a message of several lines shows the place itself
        yield from _source(home, error)
    yield f"  → {runnable(error.fix(speech.language))}"


def _source(home: Path, error: HubError) -> Iterator[str]:
    """The source line of the error, and a caret below the column."""
    place = error.place
    if place is None or not place.line:
        return
    try:
        source = (home / place.file).read_text("utf-8-sig").splitlines()[place.line - 1]
    except (OSError, UnicodeDecodeError, IndexError):
        return
    start = max(0, place.column - 1 - MAX_LINE_CHARS // 2)
    shown, number = source[start : start + MAX_LINE_CHARS].expandtabs(1), f"{place.line:>4} | "
    before = shown[: place.column - 1 - start]
    yield f"{number}{shown}"
    yield f"{' ' * (len(number) - 2)}| {' ' * width(before)}^"


def summary(errors: int, warnings: int, elsewhere: int = 0) -> str:
    """The last line. `elsewhere`: the number of findings in files that were not requested."""
    more = text("；别的文件里还有 {} 处", "; {} more in other files").format(elsewhere) if elsewhere else ""
    if not errors and not warnings:
        return text("✔ 没有发现问题", "✔ nothing is wrong") + more
    mark = "✘" if errors else "✔"
    return f"{mark} " + text("{} 处错误，{} 处提醒", "errors: {}, warnings: {}").format(errors, warnings) + more
