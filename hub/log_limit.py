"""Says a line that comes again and again a few times, and then how often: a flood must not fill the disk with its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import structlog

REPEATED = "log.repeated"


@dataclass(frozen=True)
class Rate:
    """So many alike in so many seconds are written."""

    lines: int = 100
    seconds: float = 60.0
    kinds: int = 1000
    """Kinds of lines that are told apart; all others are one kind."""


@dataclass
class _Kind:
    began: float
    written: int = 0
    withheld: int = 0


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream. Lines are alike when one logger says the same event, with the same code, at the same level."""

    def __init__(self, stream: TextIO, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream)
        self._rate, self._clock = rate or Rate(), clock
        self._kinds: dict[tuple[str, ...], _Kind] = {}
        self._looked = clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or count it."""
        event = _event(record)
        if event == REPEATED:
            super().emit(record)
            return
        now = self._clock()
        if now - self._looked >= self._rate.seconds:
            self._looked = now
            self.sum_up()
        key = self._key(record, event)
        kind = self._kinds.setdefault(key, _Kind(now))
        if now - kind.began >= self._rate.seconds:
            self._sum(key, kind)
            kind = self._kinds[key] = _Kind(now)
        if kind.written < self._rate.lines:
            kind.written += 1
            super().emit(record)
        else:
            kind.withheld += 1

    def sum_up(self) -> None:
        """Say of all that was withheld how often it came, and begin anew."""
        kinds, self._kinds = self._kinds, {}
        for key, kind in kinds.items():
            self._sum(key, kind)

    def close(self) -> None:
        """Say what is still to be said."""
        self.sum_up()
        super().close()

    def _key(self, record: logging.LogRecord, event: str) -> tuple[str, ...]:
        code = str(record.msg.get("code", "")) if isinstance(record.msg, dict) else ""
        key = (record.name, record.levelname, event, code)
        return key if key in self._kinds or len(self._kinds) < self._rate.kinds else ("", "", "", "")

    def _sum(self, key: tuple[str, ...], kind: _Kind) -> None:
        if kind.withheld:
            logger, level, event, code = key
            told: dict[str, Any] = {"what": event, "logger": logger, "times": kind.withheld}
            structlog.get_logger(__name__).warning(REPEATED, **told, of_level=level, **({"code": code} if code else {}))


def _event(record: logging.LogRecord) -> str:
    """What the line says, without the facts that differ from one to the next."""
    if isinstance(record.msg, dict):
        return str(record.msg.get("event", ""))[:200]
    return str(record.msg)[:200]
