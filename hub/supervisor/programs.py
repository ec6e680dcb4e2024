"""One program of the hub, kept running."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub.heartbeat import Pulse
from hub.process import Process, stands_still
from hub.supervisor.restarts import BackOff
from hub.supervisor.rotating_log import RotatingLog
from hub.supervisor.stillness import Finding, Stillness

GRACE = 20.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Plan:
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
class Program:
    """A program that is started again, after a growing pause, whenever it ends without being told to."""

    plan: Plan
    told: Told
    heard: Callable[[str], None] = lambda line: None
    """Called with each line that it writes."""
    back_off: BackOff = field(default_factory=BackOff)
    process: Process | None = None
    restarts: int = 0
    finding: Finding = "well"
    """What the newest look has found of its present run."""
    _stillness: Stillness = field(default_factory=Stillness)
    _pulse: Pulse | None = None
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
    def _listening(self) -> Iterator[Pulse]:
        """A pulse for one run, which `look` reads meanwhile."""
        pulse = Pulse.new()
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
