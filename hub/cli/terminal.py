"""What every command shares: its options, how it speaks, and how it ends."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from hub.cli.printable import ERRORS, ascii_json, cut, marked, marked_json
from hub.errors import LANGUAGES, FatalError, HubError, RetryableError, chosen_language, preferred_language

_LANGUAGE = re.compile(rf"(?m)^language:\s*['\"]?({'|'.join(LANGUAGES)})\b")


class Exit(enum.IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    CONNECTOR = 4
    STORE = 5
    PARKED = 6


def _noted(home: Path) -> Path:
    """Note which home is named on the command line: hints have to name it, too. It decides the language if nobody else has."""
    speech.home = None if home == HERE or str(home) == os.environ.get("HUB_HOME") else home
    if chosen_language() is None and (spoken := _language_of(home)):
        choose_language(spoken)
    return home


def _language_of(home: Path) -> str | None:
    """The home's own language, as far as it can be seen at a glance: what is wrong with its settings is told elsewhere."""
    try:
        found = _LANGUAGE.search((home / "hub.yaml").read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


HomeOption = Annotated[
    Path,
    typer.Option(
        "--home", envvar="HUB_HOME", help="主目录 · the hub's home", show_default="当前目录 · here", callback=_noted
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="机器可读的输出 · machine-readable output")]
HERE = Path()


@dataclass
class Speech:
    """How this run speaks: its language, whether tracebacks are wanted, and the home that its hints have to name."""

    language: str = "zh-CN"
    verbose: bool = False
    home: Path | None = None


speech = Speech(preferred_language())


def choose_language(wanted: str | None) -> None:
    """`--lang`, else HUB_LANG, the locale, the home's. The programs that this one starts speak it, too."""
    if wanted is not None:
        match = [language for language in LANGUAGES if language.lower().startswith(wanted.lower()[:2])]
        if not match:
            raise typer.BadParameter(f"{wanted}: {', '.join(LANGUAGES)}")
        speech.language = match[0]
        os.environ["HUB_LANG"] = match[0]


def text(zh: str, en: str) -> str:
    """The text in this run's language, with every command in it as it works here."""
    from hub.cli.as_typed import runnable

    told = zh if speech.language == "zh-CN" else en
    return runnable(told) if "hub " in told else told


def say(*lines: str) -> None:
    """Print lines for people. Each stays one line, whatever text from outside is in it."""
    for line in lines:
        _put(cut(marked(line)))


def agreed(question: str) -> bool:
    """Ask for a yes. Nobody there to ask, and Ctrl-C, are a no."""
    try:
        return typer.confirm(question)
    except typer.Abort:
        _put("")
        return False


def warn(*lines: str) -> None:
    """Print lines on standard error, as `say` does."""
    for line in lines:
        _put(cut(marked(line)), err=True)


def answer(value: Mapping[str, Any] | list[Any]) -> None:
    """Print one JSON value, on one line: what would act on a terminal is escaped, and so is what its encoding lacks."""
    shown = marked_json(_json(value))
    try:
        shown.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        shown = ascii_json(shown)
    _put(shown)


def _json(value: Any) -> str:
    import orjson

    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # half a surrogate pair, or a number of more than 64 bits
        import json

        return json.dumps(value, default=str)


class OutputError(OSError):
    """What is said cannot be written, as on a full disk. A reader that has gone away raises BrokenPipeError instead."""


def clear() -> None:
    """Empty the screen of a terminal that is looked at."""
    if sys.stdout is not None and sys.stdout.isatty():
        sys.stdout.write("\x1b[2J\x1b[H")


def _put(text: str, *, err: bool = False) -> None:
    out = sys.stderr if err else sys.stdout
    if out is None:  # closed by whoever started this
        return
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def any_encoding() -> None:
    """Let what this terminal's encoding lacks be printed as a stand-in instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def say_no_more() -> None:
    """Throw away what is left to be written: at its end, Python would complain of it once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(error: HubError) -> Exit:
    """The exit code of an error: its code's first digits say which part it comes from."""
    part = error.code[4:6]
    by_part = {"E1": Exit.CONFIG, "E3": Exit.CONFIG, "E4": Exit.CONNECTOR, "E2": Exit.STORE, "E5": Exit.STORE}
    return by_part.get(part, Exit.FAILED)


def explain(error: HubError) -> list[str]:
    """An error for people, line by line: code, place, what was seen, what to do."""
    from hub.cli.as_typed import runnable

    place = f" {error.place}" if error.place else ""
    fix = runnable(error.fix(speech.language))
    return [*f"{error.code}{place}  {error.message(speech.language)}".split("\n"), f"  → {fix}"]


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
        warn(*explain(error))
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
