"""Cases that are over, in the order in which they came to their ends: which of them are to be forgotten, told by the log alone.

A partition's clock is the latest `recordedtime` among the records that were folded, and no clock of a machine. A case that is over
since a moment is forgotten once that clock is a settable time ahead of it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.event import moment, stamp


@dataclass
class Over:
    """The cases of one partition that are over, and not forgotten."""

    since: dict[bytes, str] = field(default_factory=dict)
    """Key → the partition's clock at the case's last record."""
    _heap: list[tuple[str, bytes]] = field(default_factory=list)
    """The same, and what was so before; the earliest first."""

    def note(self, key: bytes, since: str) -> None:
        """The case is over since then; empty: it is not."""
        if since:
            self.since[key] = since
            heapq.heappush(self._heap, (since, key))
            if len(self._heap) > 2 * len(self.since) + 1000:
                self._heap = [(since, key) for key, since in self.since.items()]
                heapq.heapify(self._heap)
        elif self.since:
            self.since.pop(key, None)

    def until(self, last: str) -> Iterator[bytes]:
        """The cases that are over since then or longer, each once: they count as over no longer."""
        while self._heap and self._heap[0][0] <= last:
            since, key = heapq.heappop(self._heap)
            if self.since.get(key) == since:
                del self.since[key]
                yield key


_RECORDED = b'"recordedtime":"'
_LENGTH = len("2026-01-01T00:00:00.000000Z")


def later(clock: str, raw: bytes | None) -> str:
    """The clock, after this record. One that says no time leaves it as it is."""
    if not raw or (at := raw.find(_RECORDED)) < 0:
        return clock
    recorded = raw[at + len(_RECORDED) : at + len(_RECORDED) + _LENGTH].decode(errors="replace")
    return recorded if recorded > clock and _is_time(recorded) else clock


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text[10] == "T" and text[-1] == "Z"


def before(clock: str, after: timedelta) -> str:
    """The moment from which on a case is not forgotten yet; empty where there is none."""
    try:
        return stamp(moment(clock) - after)
    except (ValueError, OverflowError):
        return ""
