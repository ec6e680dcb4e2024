"""What a person should hear of that a program wrote to its log: what has a code, and, when it has ended, plain words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import orjson

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
