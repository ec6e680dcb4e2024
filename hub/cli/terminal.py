"""Shared by all commands: options, output for people and as JSON, exit codes, runnable hints, progress bars and stop signals."""

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

SINGLE_COMMANDS = "up|down|status|doctor|validate|why|rebuild|audit|backup|restore"
COMMAND_GROUPS = "connectors|events|rules|parked|repair|config"
SUBCOMMANDS = "list|check|describe|tail|show|conflicts|test|dry-run|history|edit|preview|retry|discard|state"
_COMMAND = re.compile(
    rf"(?<![\w./-])hub (?P<words>(?:{SINGLE_COMMANDS})|(?:{COMMAND_GROUPS})(?: (?:{SUBCOMMANDS}))?)"
    r"(?![\w./-])(?! *--home)"
)
_HOMELESS = re.compile(r"(?<![\w./-])hub (?=(?:init|demo|explain)\b)")


def runnable(hint: str) -> str:
    """A hint with every command in it as it runs from here: the hub as it was called, quoted for the shell, and with its home.

    Idempotent; facts may be formatted into the hint afterwards.
    """
    if "{" in program() + home_option():  # `format` would fail on it
        return hint
    named = _COMMAND.sub(lambda found: f"{program()} {found['words']}{home_option()}", hint)
    return _HOMELESS.sub(lambda found: f"{program()} ", named)


def command_line(*words: str) -> str:
    """A command of the hub as it runs from here."""
    return f"{program()} {' '.join(words)}{home_option()}"


def home_option() -> str:
    """The option that names the home, empty where the command finds the home by itself."""
    return f" --home {shlex.quote(str(speech.home))}" if speech.home is not None else ""


def program(below: Path | None = None) -> str:
    """The hub's program as called from here, or from a folder `below`: its name where the shell finds it so, else its path."""
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


class ProgressBars(Protocol):
    """Shows the progress of several tasks."""

    def show(self, board: str, done: int, total: int) -> None:
        """Report that `done` of `total` is done."""


class NoProgressBars:
    """Shows nothing: for output that is no terminal."""

    def show(self, board: str, done: int, total: int) -> None:
        """Do nothing."""


@contextlib.contextmanager
def progress_bars(quiet: bool) -> Iterator[ProgressBars]:
    """Progress bars on standard error for the time of the block; none where it is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield NoProgressBars()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _RichProgressBars(progress)


class _RichProgressBars:
    """One bar for each task."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def show(self, board: str, done: int, total: int) -> None:
        if board not in self._tasks:
            self._tasks[board] = self._progress.add_task(board, total=total)
        self._progress.update(self._tasks[board], completed=done, total=total)


SAME_SIGNAL_S = 1.0
"""Seconds within which a second signal is the same request: a terminal and `timeout` signal both a program and its group."""
EXIT_INTERRUPTED = 130


class StopSignal(BaseException):
    """SIGTERM or SIGINT came."""


@dataclass
class ShutdownSignals:
    """Handles SIGTERM and SIGINT: the first raises StopSignal, unless a stop is in progress; a later one kills everything."""

    kill: Callable[[], None]
    """Ends every child with SIGKILL; may be called at any time."""
    leave: Callable[[int], object] = os._exit
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)

    def handle(self) -> None:
        """Handle the signals from now on, also after the block that they stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)

    def begin(self) -> None:
        """Mark the stop as begun, with or without a signal: from now on no signal interrupts it."""
        self._since = self.clock() if self._since is None else self._since

    def on_signal(self, *_signal: object) -> None:
        """Handle one signal."""
        if self._since is None:
            self._since = self.clock()
            raise StopSignal
        if self.clock() - self._since > SAME_SIGNAL_S:
            with contextlib.suppress(Exception):
                self.kill()
            self.leave(EXIT_INTERRUPTED)


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


def _remember_home(home: Path) -> Path:
    """Remember the home of the command line: hints have to name it, too. It decides the language if nothing else has."""
    speech.home = None if home == HERE or str(home) == os.environ.get("HUB_HOME") else home
    if chosen_language() is None and (spoken := _language_of(home)):
        choose_language(spoken)
    return home


def _language_of(home: Path) -> str | None:
    """The home's own language by a quick search of hub.yaml, None without one: the settings are validated elsewhere."""
    try:
        match = _LANGUAGE.search((home / "hub.yaml").read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None
    return match[1] if match else None


HomeOption = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="HUB_HOME",
        help="主目录 · the hub's home",
        show_default="当前目录 · here",
        callback=_remember_home,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="机器可读的输出 · machine-readable output")]
HERE = Path()


@dataclass
class OutputSettings:
    """This run's output: its language, whether tracebacks are wanted, and the home that its hints have to name."""

    language: str = "zh-CN"
    verbose: bool = False
    home: Path | None = None


speech = OutputSettings(preferred_language())


def choose_language(wanted: str | None) -> None:
    """Use `--lang`, else HUB_LANG, the locale, the home's language; programs that this one starts inherit it."""
    if wanted is not None:
        match = [language for language in LANGUAGES if language.lower().startswith(wanted.lower()[:2])]
        if not match:
            raise typer.BadParameter(f"{wanted}: {', '.join(LANGUAGES)}")
        speech.language = match[0]
        os.environ["HUB_LANG"] = match[0]


def text(zh: str, en: str) -> str:
    """The text in this run's language, with every command in it as it runs from here."""
    chosen = zh if speech.language == "zh-CN" else en
    return runnable(chosen) if "hub " in chosen else chosen


def say(*lines: str) -> None:
    """Print lines for people. Each stays one line, whatever outside text it holds."""
    for line in lines:
        _put(cut(marked(line)))


def confirmed(question: str) -> bool:
    """Ask for a yes. Ctrl-C and a closed input count as no."""
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
    """Print one JSON value on one line: control characters are escaped, and so are characters that the encoding lacks."""
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
    """The output cannot be written, as on a full disk. A reader that has gone away raises BrokenPipeError instead."""


def clear() -> None:
    """Clear the screen if standard output is a terminal."""
    if sys.stdout is not None and sys.stdout.isatty():
        sys.stdout.write("\x1b[2J\x1b[H")


def _put(text: str, *, err: bool = False) -> None:
    out = sys.stderr if err else sys.stdout
    if out is None:  # the parent process closed it
        return
    try:
        out.write(f"{text}\n")
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def replace_unencodable() -> None:
    """Print substitutes for characters that this terminal's encoding lacks, instead of failing the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def discard_output() -> None:
    """Discard buffered and further output: otherwise Python would report the error once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(error: HubError) -> Exit:
    """The exit code of an error, by its code's first digits, which name the part it comes from."""
    part = error.code[4:6]
    by_part = {"E1": Exit.CONFIG, "E3": Exit.CONFIG, "E4": Exit.CONNECTOR, "E2": Exit.STORE, "E5": Exit.STORE}
    return by_part.get(part, Exit.FAILED)


def explain(error: HubError) -> list[str]:
    """An error for people, line by line: code, place, message, what to do."""
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
    """Print an error for people or as JSON; returns its exit code."""
    if json:
        answer({"error": as_json(error)})
    else:
        warn(*explain(error))
    if speech.verbose:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    return int(exit_code(error))


def internal_error(error: Exception) -> HubError:
    """An unexpected exception as HUB-E1099: its traceback goes to a file that the user can send us."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="hub-defect-", suffix=".txt", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    wrapped = FatalError("HUB-E1099", reason=f"{type(error).__name__}: {error}", file=file.name)
    wrapped.__cause__ = error
    return wrapped
