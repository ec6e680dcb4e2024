"""Case expiry: which ended cases are forgotten, decided by the log alone, and the offset ranges (spans) of a case's records. Pure.

A partition's clock is the latest `recordedtime` of its folded records, not a machine's clock. An ended case is forgotten once that
clock is a configurable time past the case's end.

The spans of a case are stretches of its partition that contain all its records, and perhaps some of other cases. They are one
short list of numbers: the first offset, the number of records after it in the stretch, and then for each further stretch its
distance from the last one's end, and the number of records after its first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from schemas.envelope import format_time, parse_time

MAX_GAP_RECORDS = 16
"""Records of other cases that are read along before a new stretch begins."""
MAX_STRETCHES = 32
"""Stretches of one case. Where more would be needed, the two with the fewest records between them are merged."""
MAX_CASE_RECORDS = 10_000
"""Records in the stretches of one case. A case with more has no spans: to read it again would delay the other cases."""

Spans = tuple[int, ...]


def with_offsets(spans: Spans | None, offsets: Sequence[int]) -> Spans | None:
    """The spans extended by later records; None once they contain more than `MAX_CASE_RECORDS`."""
    if spans is None:
        return None
    ranges = list(spans)
    last = last_offset(spans)
    for offset in offsets:
        if last is not None and offset - last <= MAX_GAP_RECORDS:
            ranges[-1] += offset - last
        else:
            ranges += (offset if last is None else offset - last, 0)
            if len(ranges) > 2 * MAX_STRETCHES:
                _merge_closest(ranges)
        last = offset
    return tuple(ranges) if record_count(ranges) <= MAX_CASE_RECORDS else None


def _merge_closest(ranges: list[int]) -> None:
    """Merge the two stretches that have the fewest records between them."""
    index = min(range(2, len(ranges), 2), key=ranges.__getitem__)
    ranges[index - 1] += ranges[index] + ranges[index + 1]
    del ranges[index : index + 2]


def last_offset(spans: Sequence[int]) -> int | None:
    """The last offset in the spans."""
    return sum(spans) if spans else None


def record_count(spans: Sequence[int]) -> int:
    """The number of records in the spans."""
    return sum(spans[1::2]) + len(spans) // 2


def stretches(spans: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last offset of each stretch, in order."""
    last = 0
    for index in range(0, len(spans), 2):
        first = last + spans[index]
        last = first + spans[index + 1]
        yield first, last


def merge_stretches(many: Iterable[Sequence[int]], near: int) -> list[tuple[int, int]]:
    """All stretches of several spans in order; those at most `near` records apart are merged."""
    ranges = list[tuple[int, int]]()
    for first, last in sorted(stretch for spans in many for stretch in stretches(spans)):
        if ranges and first - ranges[-1][1] <= near:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
        else:
            ranges.append((first, last))
    return ranges


def encode_spans(spans: Sequence[int]) -> bytes:
    """Encode spans as variable-length integers of seven bits a byte."""
    encoded = bytearray()
    for number in spans:
        while number > 127:
            encoded.append(number & 127 | 128)
            number >>= 7
        encoded.append(number)
    return bytes(encoded)


def decode_spans(raw: bytes) -> Spans:
    """Decode what `encode_spans` returned."""
    ranges, number, shift = list[int](), 0, 0
    for byte in raw:
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            ranges.append(number)
            number, shift = 0, 0
    return tuple(ranges)


@dataclass
class EndedCases:
    """The cases of one partition that have ended and are not forgotten."""

    since: dict[bytes, str] = field(default_factory=dict)
    """Key → the partition's clock at the case's last record."""
    _heap: list[tuple[str, bytes]] = field(default_factory=list)
    """A heap of the same entries and outdated ones, the earliest first."""

    def note(self, key: bytes, since: str) -> None:
        """Note when a case ended; empty: it has not."""
        if since:
            self.since[key] = since
            heapq.heappush(self._heap, (since, key))
            if len(self._heap) > 2 * len(self.since) + 1000:
                self._heap = [(since, key) for key, since in self.since.items()]
                heapq.heapify(self._heap)
        elif self.since:
            self.since.pop(key, None)

    def until(self, last: str) -> Iterator[bytes]:
        """Remove and yield the cases that ended at `last` or before."""
        while self._heap and self._heap[0][0] <= last:
            since, key = heapq.heappop(self._heap)
            if self.since.get(key) == since:
                del self.since[key]
                yield key


_RECORDED = b'"recordedtime":"'
_LENGTH = len("2026-01-01T00:00:00.000000Z")


def advance_clock(clock: str, raw: bytes | None) -> str:
    """The clock after this record. A record without a time does not change it."""
    if not raw or (index := raw.find(_RECORDED)) < 0:
        return clock
    recorded = raw[index + len(_RECORDED) : index + len(_RECORDED) + _LENGTH].decode(errors="replace")
    return recorded if recorded > clock and _is_time(recorded) else clock


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text[10] == "T" and text[-1] == "Z"


def expiry_cutoff(clock: str, after: timedelta) -> str:
    """The time at or before which an ended case is forgotten; empty if the clock is not set."""
    try:
        return format_time(parse_time(clock) - after)
    except (ValueError, OverflowError):
        return ""
