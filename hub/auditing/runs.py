"""Sets of whole numbers that come mostly in order, kept as runs: as small as they have gaps, whatever numbers a stranger writes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Runs:
    """A set of whole numbers: `starts[i]` to `ends[i]`, both in it, in order, and no two of them adjoin."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, first: int, last: int | None = None) -> None:
        """Add a number, or all from `first` to `last`; nothing when `last` is before it."""
        last = first if last is None else last
        if last < first:
            return
        low = bisect_left(self.ends, first - 1)  # the first run that reaches up to it
        high = low
        while high < len(self.starts) and self.starts[high] <= last + 1:
            high += 1
        if low < high:
            first, last = min(first, self.starts[low]), max(last, self.ends[high - 1])
        self.starts[low:high], self.ends[low:high] = [first], [last]

    @property
    def largest(self) -> int:
        """The largest; 0 when it is empty."""
        return self.ends[-1] if self.ends else 0

    def missing(self, last: int) -> Iterator[tuple[int, int]]:
        """The gaps between 1 and `last`, each as its first and its last number."""
        due = 1
        for start, end in zip(self.starts, self.ends, strict=True):
            if start > last:
                break
            if start > due:
                yield due, start - 1
            due = max(due, end + 1)
        if due <= last:
            yield due, last
