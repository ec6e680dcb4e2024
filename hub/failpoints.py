"""Places where a test may stop, kill or fail a program: every boundary that a crash may fall on has a name here.

`HUB_FAIL=<name>:<nth>:exit|stop|raise` makes the nth pass through that place end the process at once (as kill -9 would), stop it
(SIGSTOP), or raise. Unset, a pass costs one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field

NAMES = frozenset(
    {
        "worker.before-fold",
        "worker.outputs-delivered",
        "worker.states-delivered",
        "intake.committed",
        "poller.fetched",
        "relay.taken",
        "relay.delivered",
        "executor.accepted",
        "executor.before-sending",
        "executor.sending",
        "executor.before-call",
        "executor.called",
        "executor.before-done",
        "executor.done",
        "projection.before-commit",
        "projection.committed",
    }
)


class FailpointError(Exception):
    """What `raise` raises."""


@dataclass
class _Armed:
    name: str
    nth: int
    action: str
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pass_by(self) -> None:
        with self.lock:
            self.passes += 1
            if self.passes != self.nth:
                return
        if self.action == "exit":
            os._exit(137)
        if self.action == "stop":
            # To this thread: sent to the process, the signal may reach another first, and this one runs on meanwhile.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            return
        raise FailpointError(self.name)


def _read(setting: str | None) -> _Armed | None:
    if not setting:
        return None
    name, nth, action = setting.rsplit(":", 2)
    if name not in NAMES or action not in {"exit", "stop", "raise"}:
        raise ValueError(f"HUB_FAIL names no failpoint: {setting}; there are {', '.join(sorted(NAMES))}")
    return _Armed(name, int(nth), action)


_armed = _read(os.environ.get("HUB_FAIL"))


def reach(name: str) -> None:
    """Pass through a place."""
    if _armed is not None and _armed.name == name:
        _armed.pass_by()
