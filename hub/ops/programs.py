"""Runs one program of the hub: restarts it with back-off, rotates its log, picks alarms from the log, and detects stalls.

A stalled program is one whose heartbeats stop, or whose process the system has stopped. Stall detection is pure: each poll passes
the time. Of a long pause between two polls only two poll intervals count, so that no program is killed because the machine was
suspended or the supervisor itself was stopped.
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

from hub.runtime.process import Process, is_suspended
from hub.runtime.watchdog import HeartbeatMonitor

FIRST_PAUSE_S, MAX_PAUSE_S = 0.2, 10.0
"""Back-off before a restart: the first pause, and the longest."""
STEADY_RUN_S = 10.0
"""A run that lasted this long resets the back-off."""


@dataclass
class BackOff:
    """Exponential back-off: doubles the pause while a program ends soon after each start."""

    pause: float = FIRST_PAUSE_S

    def after(self, ran: float) -> float:
        """Seconds to wait before the next start, after a run of `ran` seconds."""
        if ran >= STEADY_RUN_S:
            self.pause = FIRST_PAUSE_S
        now, self.pause = self.pause, min(self.pause * 2, MAX_PAUSE_S)
        return now


ALARM_REPEAT_S = 60.0
"""The same alarm is reported again only after this time."""
LEVELS = ("error", "warning")
ALARM_KEY = ("program", "code", "place", "instance")
"""The fields that identify an alarm."""


@dataclass
class Alarms:
    """Picks alarms from log lines, each at most once a minute. Called from several threads: two at once may both pass."""

    clock: Callable[[], float] = time.monotonic
    _reported: dict[tuple[object, ...], float] = field(default_factory=dict)

    def of(self, line: str) -> dict[str, object] | None:
        """The alarm in a line of a program's log: `level`, `program`, `code`, where known `place`, `instance`, `reason`, `fix`."""
        entry = _entry(line)
        if entry is None or entry.get("level") not in LEVELS or "code" not in entry:
            return None
        alarm = {name: entry[name] for name in ("level", *ALARM_KEY, "reason", "fix") if entry.get(name)}
        key, now = tuple(alarm.get(name) for name in ALARM_KEY), self.clock()
        if now - self._reported.get(key, -ALARM_REPEAT_S) < ALARM_REPEAT_S:
            return None
        self._reported = {each: at for each, at in self._reported.items() if now - at < ALARM_REPEAT_S} | {key: now}
        return alarm


def plain_lines(lines: Iterable[str], most: int = 3) -> list[str]:
    """The last lines that are no JSON log entries: the output of Python, Java or the system as the program ended."""
    return [line for line in lines if line.strip() and _entry(line) is None][-most:]


def _entry(line: str) -> dict[str, object] | None:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


@dataclass(frozen=True)
class LogSizeLimits:
    """Maximum bytes of a program's log file, of which one older copy is retained, and of one line."""

    file: int = 20_000_000
    line: int = 64 * 1024


class RotatingLog:
    """Appends lines. A full or missing disk loses lines, and must not stop the program. For one thread."""

    def __init__(self, path: Path, bounds: LogSizeLimits | None = None) -> None:
        self._path, self._bounds = path, bounds or LogSizeLimits()
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, line: str) -> None:
        """Append a line; one longer than the limit is cut."""
        raw = line.encode(errors="replace")
        if len(raw) > self._bounds.line:
            raw = raw[: self._bounds.line] + b" ..."
        raw += b"\n"
        with contextlib.suppress(OSError):
            self._ready(len(raw)).write(raw)
            self._size += len(raw)

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _ready(self, more: int) -> BinaryIO:
        """The file, with room for `more` bytes: a full one is renamed, and replaces the older copy."""
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


POLL_INTERVAL_S = 1.0
"""Between two polls."""
Liveness = Literal["well", "frozen", "dead"]


@dataclass(frozen=True)
class StallLimits:
    """Seconds until a program counts as stalled (`frozen`), and until it is killed (`dead`)."""

    stopped: float = 3.0
    """With the process in the stopped state, as after SIGSTOP."""
    stopped_end: float = 8.0
    deaf: float = 15.0
    """Without a heartbeat or, for the broker, an answer. A busy machine delays any heartbeat, a large chunk a worker's."""
    deaf_end: float = 45.0


BROKER_STALL_LIMITS = StallLimits(deaf=8.0, stopped_end=60.0, deaf_end=60.0)
"""Higher limits for the broker: its producers wait and lose nothing, and its restart delays every program."""


@dataclass
class StallDetector:
    """How long one run of a program has been stalled."""

    limits: StallLimits = StallLimits()
    stopped: float = 0.0
    deaf: float = 0.0
    has_beaten: bool = False
    """Whether a heartbeat ever came. Before the first the program is starting, and the readiness timeout applies instead."""
    _last: float | None = None

    def poll(self, now: float, *, beaten: bool, is_stopped: bool) -> Liveness:
        """Record one poll; `now` is in monotonic seconds."""
        elapsed = 0.0 if self._last is None else min(now - self._last, 2 * POLL_INTERVAL_S)
        self._last, self.has_beaten = now, self.has_beaten or beaten
        self.stopped = self.stopped + elapsed if is_stopped else 0.0
        self.deaf = 0.0 if beaten or not self.has_beaten else self.deaf + elapsed
        if self.stopped >= self.limits.stopped_end or self.deaf >= self.limits.deaf_end:
            return "dead"
        return "frozen" if self.stopped >= self.limits.stopped or self.deaf >= self.limits.deaf else "well"


STOP_GRACE_S = 20.0
"""Between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class ProgramPlan:
    """How to start a program. Its output goes to `log`."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: dict[str, str]
    log: Path
    inherits: Sequence[int] = ()
    """File descriptors that every run inherits."""


ProgramListener = Callable[[str, str, int | None, Sequence[str]], None]
"""Called as (program, what: started|ended|stopped, exit code or pid, its last lines)."""


@dataclass
class SupervisedProgram:
    """A program that is restarted with back-off whenever it ends without `stop`."""

    plan: ProgramPlan
    notify: ProgramListener
    on_line: Callable[[str], None] = lambda line: None
    """Called with each line of its output."""
    back_off: BackOff = field(default_factory=BackOff)
    process: Process | None = None
    restarts: int = 0
    liveness: Liveness = "well"
    """The result of the latest poll of the current run."""
    _stalls: StallDetector = field(default_factory=StallDetector)
    _monitor: HeartbeatMonitor | None = None
    _poll_lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the program and its keeper thread; returns at once."""
        self._thread = threading.Thread(target=self._keep, name=f"keep-{self.plan.name}", daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                code, last = self._run()
            except OSError as error:  # the process or a file cannot be opened: the keeper thread must survive that
                code, last = 1, [str(error)]
            if self._stopping.is_set():
                return
            self.notify(self.plan.name, "ended", code, last)
            self.restarts += 1
            self._stopping.wait(self.back_off.after(time.monotonic() - began))

    def _run(self) -> tuple[int, list[str]]:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(contextlib.closing(RotatingLog(self.plan.log)))
            monitor = stack.enter_context(self._listening())
            process = Process(
                self.plan.command,
                self.plan.directory,
                {**self.plan.environment, **monitor.environment},
                sink=lambda line: self._take(log, line),
                inherits=(*self.plan.inherits, monitor.writing),
            )
            process.start()
            monitor.given()
            self.process = process
            self.notify(self.plan.name, "started", process.pid, ())
            if self._stopping.is_set():
                process.stop(STOP_GRACE_S)
            code = process.join()
        return code, list(process.tail)[-20:]

    @contextlib.contextmanager
    def _listening(self) -> Iterator[HeartbeatMonitor]:
        """The heartbeat monitor of one run, which `poll` reads while the run lasts."""
        monitor = HeartbeatMonitor.new()
        with self._poll_lock:
            self._monitor, self._stalls, self.liveness = monitor, StallDetector(), "well"
        try:
            yield monitor
        finally:
            with self._poll_lock:
                self._monitor, self.liveness = None, "well"
                monitor.close()

    def poll(self, now: float) -> Liveness:
        """Check for a stall; a `dead` program is killed, and its keeper thread starts it again."""
        with self._poll_lock:
            pid = self.pid
            if self._monitor is None or pid is None or self._stopping.is_set():
                return "well"
            liveness = self._stalls.poll(now, beaten=self._monitor.beaten(), is_stopped=is_suspended(pid))
            if liveness == "dead" and self.process is not None:
                self.process.kill()
            self.liveness = liveness
            return liveness

    def _take(self, log: RotatingLog, line: str) -> None:
        log.write(line)
        self.on_line(line)

    def stop(self, grace: float = STOP_GRACE_S) -> None:
        """SIGTERM, wait, SIGKILL; returns once the program has ended."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self.process is not None and self.process.running:
            self.process.stop(grace)
        if self._thread is not None:
            self._thread.join(grace)
        self.notify(self.plan.name, "stopped", None, ())

    @property
    def pid(self) -> int | None:
        """The id of its current process; None between two runs."""
        return self.process.pid if self.process is not None and self.process.running else None
