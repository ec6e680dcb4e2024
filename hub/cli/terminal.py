"""What every command shares: its options, how it speaks, and how it ends.

Commands in our hints as they work where they are read: the hub as it was called, quoted for the shell, and with its home.

How far something long is, on a terminal; nothing where there is none.

What Ctrl-C and SIGTERM do to a hub: the first stops it in order, a second one ends everything at once.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from hub.cli.render import ERRORS, ascii_json, cut, marked, marked_json
from hub.errors import LANGUAGES, FatalError, HubError, RetryableError, chosen_language, preferred_language

ALONE = "up|down|status|doctor|validate|why|rebuild|audit|backup|restore"
GROUPS = "connectors|events|rules|parked|repair|config"
BELOW = "list|check|describe|tail|show|conflicts|test|dry-run|history|edit|preview|retry|discard|state"
_COMMAND = re.compile(rf"(?<![\w./-])hub (?P<words>(?:{ALONE})|(?:{GROUPS})(?: (?:{BELOW}))?)(?![\w./-])(?! *--home)")
_HOMELESS = re.compile(r"(?<![\w./-])hub (?=(?:init|demo|explain)\b)")


def runnable(hint: str) -> str:
    """A hint of ours, with every command in it as it works here. May be asked twice; facts may be put into the hint afterwards."""
    if "{" in program() + of_home():  # `format` would stumble over it
        return hint
    named = _COMMAND.sub(lambda found: f"{program()} {found['words']}{of_home()}", hint)
    return _HOMELESS.sub(lambda found: f"{program()} ", named)


def command_line(*words: str) -> str:
    """A whole command of the hub as it works here."""
    return f"{program()} {' '.join(words)}{of_home()}"


def of_home() -> str:
    """The option that names the home, empty where the command finds it by itself."""
    return f" --home {shlex.quote(str(speech.home))}" if speech.home is not None else ""


def program(below: Path | None = None) -> str:
    """The hub as it is called from here, or from a folder `below`: by its name where the shell finds it so, else by its path."""
    called = Path(sys.argv[0])
    if called.name == "main.py":
        return f"{shlex.quote(sys.executable)} -m hub.cli.main"
    if called.name != "hub":
        return "hub"
    found = shutil.which("hub")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "hub"
    path = called.absolute()
    inside = path.is_relative_to(Path.cwd()) and below is None
    return shlex.quote(str(path.relative_to(Path.cwd()) if inside else path))


class Bar(Protocol):
    """Shows how far each of several things is."""

    def show(self, board: str, done: int, total: int) -> None:
        """So much of so much is done."""


class Silent:
    """For output that is no terminal."""

    def show(self, board: str, done: int, total: int) -> None:
        """Nothing."""


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Bar]:
    """A bar on standard error for the time of the block."""
    if quiet or not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Rich(progress)


class _Rich:
    """A bar for each thing."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, board: str, done: int, total: int) -> None:
        if board not in self._tasks:
            self._tasks[board] = self._progress.add_task(board, total=total)
        self._progress.update(self._tasks[board], completed=done, total=total)


SAME = 1.0
"""Seconds within which a second signal is the same request: a terminal and `timeout` tell a program and its group alike."""
INTERRUPTED = 130


class StopSignal(BaseException):
    """SIGTERM or SIGINT came."""


@dataclass
class Stopping:
    """Handles both signals. Raises ToldToStop once, and never in the middle of a stop."""

    kill: Callable[[], None]
    """Ends every child with SIGKILL; may be called at any time."""
    leave: Callable[[int], object] = os._exit
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)

    def handle(self) -> None:
        """Handle the signals from now on, also after the block that they stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.told)

    def begin(self) -> None:
        """The stop begins, told or not: no signal may break into it any more."""
        self._since = self.clock() if self._since is None else self._since

    def told(self, *_signal: object) -> None:
        """A signal came."""
        if self._since is None:
            self._since = self.clock()
            raise StopSignal
        if self.clock() - self._since > SAME:
            with contextlib.suppress(Exception):
                self.kill()
            self.leave(INTERRUPTED)


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
    pass

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
    pass

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
