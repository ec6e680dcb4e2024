"""Failpoints: named places where a test can kill, stop, hang or fail a program. Every crash boundary has a name here.

`HUB_FAIL=<name>:<nth>:exit|stop|hang|raise` makes the nth pass through that failpoint end the process immediately (as kill -9
would), stop it (SIGSTOP), block this thread forever, or raise. `HUB_FAIL=@<file>` reads the plan from a file, which may be written
while the program runs and is emptied when the plan triggers: a fault harness arms programs that are already under load. Unset, a
pass costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

NAMES = frozenset(
    {
        "log.before-append",
        "log.sent",
        "log.appended",
        "ledger.before-commit",
        "ledger.committed",
        "ledger.trimming",
        "http.before-write",
        "http.written",
        "http.answered",
        "worker.before-fold",
        "worker.cases-back",
        "worker.before-in-force",
        "worker.in-force",
        "worker.rules-announced",
        "worker.outputs-delivered",
        "worker.states-delivered",
        "intake.committed",
        "poller.fetched",
        "trim.chosen",
        "relay.taken",
        "relay.delivered",
        "executor.accepted",
        "executor.before-sending",
        "executor.sending",
        "executor.before-call",
        "executor.called",
        "executor.before-done",
        "executor.done",
        "boards.before-commit",
        "boards.committed",
    }
)


class FailpointError(Exception):
    """The exception of the action `raise`."""


@dataclass
class _Armed:
    name: str
    nth: int
    action: str
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self, name: str) -> None:
        if name == self.name and self._is_due():
            self.fail()

    def _is_due(self) -> bool:
        with self.lock:
            self.passes += 1
            return self.passes == self.nth

    def fail(self) -> None:
        """Perform the action."""
        if self.action == "exit":
            os._exit(137)
        if self.action == "stop":
            # To this thread: a signal to the process may reach another thread first, while this one runs on.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return
        if self.action == "hang":
            threading.Event().wait()
        raise FailpointError(self.name)


class _FromFile:
    """The plan in a file, read again at each pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        self.text = ""
        self.plan: _Armed | None = None

    def pass_by(self, name: str) -> None:
        with self.lock:
            setting = self.path.read_text().strip() if self.path.exists() else ""
            if setting != self.text:
                self.text, self.plan = setting, _plan(setting)
            plan = self.plan
            due = plan is not None and plan.name == name and plan._is_due()
            if due:
                self.path.write_text("")
        if plan is not None and due:
            plan.fail()


def _plan(setting: str) -> _Armed | None:
    if not setting:
        return None
    name, nth, action = setting.rsplit(":", 2)
    if name not in NAMES or action not in {"exit", "stop", "hang", "raise"}:
        raise ValueError(f"HUB_FAIL names no failpoint: {setting}; there are {', '.join(sorted(NAMES))}")
    return _Armed(name, int(nth), action)


def _read(setting: str | None) -> _Armed | _FromFile | None:
    if setting and setting.startswith("@"):
        return _FromFile(Path(setting[1:]))
    return _plan(setting or "")


_armed = _read(os.environ.get("HUB_FAIL"))


def failpoint(name: str) -> None:
    """Pass through the failpoint of this name."""
    if _armed is not None:
        _armed.pass_by(name)
