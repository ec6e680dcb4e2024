"""One program of the hub, kept running.

When to start a program again that has ended.

What a person should hear of that a program wrote to its log: what has a code, and, when it has ended, plain words.

A program's log: turned while it is written, so that it never grows past its bound, however long the program runs.

Which programs stand still: by their heartbeats, and by what the system says of their processes. Pure: time comes in by looks.

Only time between looks counts, and of a long pause between two no more than a little: when a machine was suspended, or the
supervisor stood still too, nobody is blamed for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import orjson

from hub.runtime.process import Process, stands_still
from hub.runtime.watchdog import HeartbeatMonitor

FIRST, MOST = 0.2, 10.0
"""Seconds before a restart: the first, and the longest."""
STEADY = 10.0
"""Seconds after which a program that ran is taken to be well."""


@dataclass
class BackOff:
    """Doubles the pause while a program keeps ending soon after its start."""

    pause: float = FIRST

    def after(self, ran: float) -> float:
        """Seconds to wait now, after a run of so many seconds."""
        if ran >= STEADY:
            self.pause = FIRST
        now, self.pause = self.pause, min(self.pause * 2, MOST)
        return now


AGAIN = 60.0
"""Seconds after which the same alarm is worth a line again."""
LEVELS = ("error", "warning")
MARK = ("program", "code", "place", "instance")
"""What makes an alarm the same."""


@dataclass
class Alarms:
    """Picks them out, each once a minute. Lines come from several threads: two at the same moment may both be told."""

    clock: Callable[[], float] = time.monotonic
    _told: dict[tuple[object, ...], float] = field(default_factory=dict)

    def of(self, line: str) -> dict[str, object] | None:
        """The alarm in a line of a program's log: `level`, `program`, `code`, where known `place`, `instance`, `reason`, `fix`."""
        entry = _entry(line)
        if entry is None or entry.get("level") not in LEVELS or "code" not in entry:
            return None
        alarm = {name: entry[name] for name in ("level", *MARK, "reason", "fix") if entry.get(name)}
        mark, now = tuple(alarm.get(name) for name in MARK), self.clock()
        if now - self._told.get(mark, -AGAIN) < AGAIN:
            return None
        self._told = {each: at for each, at in self._told.items() if now - at < AGAIN} | {mark: now}
        return alarm


def plain(lines: Iterable[str], most: int = 3) -> list[str]:
    """The last lines that are no entries of our log: what Python, Java or the system said as the program ended."""
    return [line for line in lines if line.strip() and _entry(line) is None][-most:]


def _entry(line: str) -> dict[str, object] | None:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


@dataclass(frozen=True)
class LogSizeLimits:
    """Bytes that a program's logs may take: those of one file, of which one older is kept, and of one line."""

    file: int = 20_000_000
    line: int = 64 * 1024


class RotatingLog:
    """Appends lines. A disk that is full or gone loses lines, and must not take the program with its log. For one thread."""

    def __init__(self, path: Path, bounds: LogSizeLimits | None = None) -> None:
        self._path, self._bounds = path, bounds or LogSizeLimits()
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, line: str) -> None:
        """Append a line; an endless one is cut."""
        raw = line.encode(errors="replace")
        if len(raw) > self._bounds.line:
            raw = raw[: self._bounds.line] + b" ..."
        raw += b"\n"
        with contextlib.suppress(OSError):
            self._ready(len(raw)).write(raw)
            self._size += len(raw)

    def close(self) -> None:
        """Let go of the file; the next line opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _ready(self, more: int) -> BinaryIO:
        """The file, with room for so many bytes: one that is full is set aside, in the place of an older one."""
        if self._file is None:
            self._open()
        if self._size and self._size + more > self._bounds.file:
            self.close()
            self._path.replace(self._path.with_suffix(".1.log"))
            self._open()
        assert self._file is not None
        return self._file

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._path.stat().st_size


LOOK = 1.0
"""Seconds between two looks."""
Finding = Literal["well", "frozen", "dead"]


@dataclass(frozen=True)
class Patience:
    """Seconds until a program is said to stand still (`frozen`), and until it is ended (`dead`)."""

    stopped: float = 3.0
    """In the state that SIGSTOP brings."""
    stopped_end: float = 8.0
    deaf: float = 15.0
    """Without a heartbeat, or, for the broker, an answer. A busy machine makes a loop wait for some, a large chunk a worker's."""
    deaf_end: float = 45.0


BROKER = Patience(deaf=8.0, stopped_end=60.0, deaf_end=60.0)
"""The log's own patience: whoever writes to it waits and loses nothing, and its restart costs everybody a while."""


@dataclass
class Stillness:
    """For how long one run of a program has been seen to stand still."""

    patience: Patience = Patience()
    stopped: float = 0.0
    deaf: float = 0.0
    heard: bool = False
    """Whether it has beaten at all: before that it is starting, and whoever waits for it to be ready gives up on it."""
    _last: float | None = None

    def look(self, now: float, *, beaten: bool, is_stopped: bool) -> Finding:
        """Note one look, `now` in monotonic seconds."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * LOOK)
        self._last, self.heard = now, self.heard or beaten
        self.stopped = self.stopped + elapsed if is_stopped else 0.0
        self.deaf = 0.0 if beaten or not self.heard else self.deaf + elapsed
        if self.stopped >= self.patience.stopped_end or self.deaf >= self.patience.deaf_end:
            return "dead"
        return "frozen" if self.stopped >= self.patience.stopped or self.deaf >= self.patience.deaf else "well"


GRACE = 20.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class ProgramPlan:
    """How a program is started. Its output goes to `log`."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: dict[str, str]
    log: Path
    inherits: Sequence[int] = ()
    """Open files that each run of it gets."""


Told = Callable[[str, str, int | None, Sequence[str]], None]
"""Called as (program, what: started|ended|stopped, exit code or pid, its last lines)."""


@dataclass
class SupervisedProgram:
    """A program that is started again, after a growing pause, whenever it ends without being told to."""

    plan: ProgramPlan
    told: Told
    heard: Callable[[str], None] = lambda line: None
    """Called with each line that it writes."""
    back_off: BackOff = field(default_factory=BackOff)
    process: Process | None = None
    restarts: int = 0
    finding: Finding = "well"
    """What the newest look has found of its present run."""
    _stillness: Stillness = field(default_factory=Stillness)
    _pulse: HeartbeatMonitor | None = None
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it and keep it; returns at once."""
        self._thread = threading.Thread(target=self._keep, name=f"keep-{self.plan.name}", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                code, last = self._run()
            except OSError as error:  # no process, no file to open: its keeper must outlive that
                code, last = 1, [str(error)]
            if self._stopping.is_set():
                return
            self.told(self.plan.name, "ended", code, last)
            self.restarts += 1
            self._stopping.wait(self.back_off.after(time.monotonic() - began))

    def _run(self) -> tuple[int, list[str]]:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(contextlib.closing(RotatingLog(self.plan.log)))
            pulse = stack.enter_context(self._listening())
            process = Process(
                self.plan.command,
                self.plan.directory,
                {**self.plan.environment, **pulse.environment},
                sink=lambda line: self._take(log, line),
                inherits=(*self.plan.inherits, pulse.writing),
            )
            process.start()
            pulse.given()
            self.process = process
            self.told(self.plan.name, "started", process.pid, ())
            if self._stopping.is_set():
                process.stop(GRACE)
            code = process.join()
        return code, list(process.tail)[-20:]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[HeartbeatMonitor]:
        """A pulse for one run, which `look` reads meanwhile."""
        pulse = HeartbeatMonitor.new()
        with self._looking:
            self._pulse, self._stillness, self.finding = pulse, Stillness(), "well"
        try:
            yield pulse
        finally:
            with self._looking:
                self._pulse, self.finding = None, "well"
                pulse.close()

    def look(self, now: float) -> Finding:
        """Look whether it stands still; one that is `dead` is killed, and its keeper starts it again."""
        with self._looking:
            pid = self.pid
            if self._pulse is None or pid is None or self._stopping.is_set():
                return "well"
            found = self._stillness.look(now, beaten=self._pulse.beaten(), is_stopped=stands_still(pid))
            if found == "dead" and self.process is not None:
                self.process.kill()
            self.finding = found
            return found

    def _take(self, log: RotatingLog, line: str) -> None:
        log.write(line)
        self.heard(line)

    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM, wait, SIGKILL; returns after its end."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self.process is not None and self.process.running:
            self.process.stop(grace)
        if self._thread is not None:
            self._thread.join(grace)
        self.told(self.plan.name, "stopped", None, ())

    @property
    def pid(self) -> int | None:
        """Its process now, None between two runs."""
        return self.process.pid if self.process is not None and self.process.running else None
