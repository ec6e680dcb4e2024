"""What every command shares: its options, how it speaks, and how it ends."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.errors import LANGUAGES, FatalError, HubError, RetryableError, preferred_language


class Exit(enum.IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    CONNECTOR = 4
    STORE = 5
    PARKED = 6


HomeOption = Annotated[
    Path, typer.Option("--home", envvar="HUB_HOME", help="主目录 · the hub's home", show_default="当前目录 · here")
]
JsonOption = Annotated[bool, typer.Option("--json", help="机器可读的输出 · machine-readable output")]
HERE = Path()


@dataclass
class Speech:
    """How this run speaks: its language, and whether tracebacks are wanted."""

    language: str = "zh-CN"
    verbose: bool = False


speech = Speech(preferred_language())


def choose_language(wanted: str | None) -> None:
    """`--lang`, else HUB_LANG and the locale."""
    if wanted is not None:
        match = [language for language in LANGUAGES if language.lower().startswith(wanted.lower()[:2])]
        if not match:
            raise typer.BadParameter(f"{wanted}: {', '.join(LANGUAGES)}")
        speech.language = match[0]
        os.environ["HUB_LANG"] = match[0]


def text(zh: str, en: str) -> str:
    """The text in this run's language."""
    return zh if speech.language == "zh-CN" else en


def say(line: str = "") -> None:
    """Print a line for people."""
    typer.echo(line)


def warn(line: str) -> None:
    """Print a line on standard error."""
    typer.echo(line, err=True)


def answer(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON value, on one line."""
    import orjson

    typer.echo(orjson.dumps(value, default=str).decode())


def exit_code(error: HubError) -> Exit:
    """The exit code of an error: its code's first digits say which part it comes from."""
    part = error.code[4:6]
    by_part = {"E1": Exit.CONFIG, "E3": Exit.CONFIG, "E4": Exit.CONNECTOR, "E2": Exit.STORE, "E5": Exit.STORE}
    return by_part.get(part, Exit.FAILED)


def explain(error: HubError) -> str:
    """An error for people: code, place, what was seen, what to do."""
    place = f" {error.place}" if error.place else ""
    fix = error.fix(speech.language)
    return f"{error.code}{place}  {error.message(speech.language)}\n  → {fix}"


def as_json(error: HubError) -> dict[str, Any]:
    """An error for machines."""
    return {
        "code": error.code,
        "place": str(error.place) if error.place else None,
        "message": error.message(speech.language),
        "fix": error.fix(speech.language),
        "retryable": isinstance(error, RetryableError),
        "fatal": isinstance(error, FatalError),
    }


def fail(error: HubError, *, json: bool = False) -> int:
    """Show an error the way this run wants it; its exit code."""
    if json:
        answer({"error": as_json(error)})
    else:
        warn(explain(error))
    if speech.verbose:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return int(exit_code(error))


def unforeseen(error: Exception) -> HubError:
    """A defect of ours, as an error like the others: its traceback goes to a file that can be sent along."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="hub-defect-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    wrapped = FatalError("HUB-E1099", reason=f"{type(error).__name__}: {error}", file=file.name)
    wrapped.__cause__ = error
    return wrapped
