"""Cases that are over, in the order in which they came to their ends: which of them are to be forgotten, told by the log alone.

A partition's clock is the latest `recordedtime` among the records that were folded, and no clock of a machine. A case that is over
since a moment is forgotten once that clock is a settable time ahead of it.

Where the records of a case lie in its partition: stretches of the log that hold them all, and perhaps some of others.

Written as one short row of numbers: the first offset, how many behind it belong to the stretch, and then for each further
stretch how far it lies behind the last one's end, and how many behind its first. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.envelope import format_time, parse_time

NEAR = 16
"""Records of others that are read past rather than that a stretch begins."""
STRETCHES = 32
"""Of one case. Where more would be needed, those are joined that have the fewest records between them."""
MOST_READ = 10_000
"""Records in the stretches of one case. Where there are more, the case keeps none: to read them again would hold up the others."""

Spans = tuple[int, ...]


def with_offsets(spans: Spans | None, offsets: Sequence[int]) -> Spans | None:
    """The spans with further records, behind all that they hold; None once they hold too many."""
    if spans is None:
        return None
    found = list(spans)
    last = end_of(spans)
    for offset in offsets:
        if last is not None and offset - last <= NEAR:
            found[-1] += offset - last
        else:
            found += (offset if last is None else offset - last, 0)
            if len(found) > 2 * STRETCHES:
                _join(found)
        last = offset
    return tuple(found) if length(found) <= MOST_READ else None


def _join(found: list[int]) -> None:
    """Join the two stretches that have the fewest records between them."""
    at = min(range(2, len(found), 2), key=found.__getitem__)
    found[at - 1] += found[at] + found[at + 1]
    del found[at : at + 2]


def end_of(spans: Sequence[int]) -> int | None:
    """The last offset in them."""
    return sum(spans) if spans else None


def length(spans: Sequence[int]) -> int:
    """How many records lie in them."""
    return sum(spans[1::2]) + len(spans) // 2


def stretches(spans: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last offset of each, in order."""
    last = 0
    for at in range(0, len(spans), 2):
        first = last + spans[at]
        last = first + spans[at + 1]
        yield first, last


def together(many: Iterable[Sequence[int]], near: int) -> list[tuple[int, int]]:
    """All stretches of several spans in order, those joined that lie near to each other."""
    found = list[tuple[int, int]]()
    for first, last in sorted(stretch for spans in many for stretch in stretches(spans)):
        if found and first - found[-1][1] <= near:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def packed(spans: Sequence[int]) -> bytes:
    """In as few bytes as it takes: seven bits of each number in one."""
    found = bytearray()
    for number in spans:
        while number > 127:
            found.append(number & 127 | 128)
            number >>= 7
        found.append(number)
    return bytes(found)


def unpacked(raw: bytes) -> Spans:
    """What `packed` gave."""
    found, number, shift = list[int](), 0, 0
    for byte in raw:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(number)
            number, shift = 0, 0
    return tuple(found)


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
        return format_time(parse_time(clock) - after)
    except (ValueError, OverflowError):
        return ""
