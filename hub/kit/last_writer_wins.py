"""Last-writer-wins rows: each value stores the order of the event that set it, and the newest order wins.

Duplicate and late events leave the same row, and so do two events of two partitions in either order. Therefore a rebuild can be
compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hub.kit.projection import Row
from schemas.envelope import Event


def order_of(event: Event) -> str:
    """The order of an event among those of its subject, for `is_newer`."""
    version = event.subjectversion or ""
    number = version if version.isascii() and version.isdigit() else ""
    return f"{number}|{event.recordedtime}|{event.id}"


def is_newer(order: str, than: str) -> bool:
    """Whether a write of this order wins over one of the other: always over none, and over itself.

    Two versions of the source are compared as numbers. An event without one (our own effects, buttons) is ordered by when the
    hub recorded it, since the clocks of two systems cannot be compared.
    """
    version, _, recorded = order.partition("|")
    other, _, before = than.partition("|")
    if version and other and version != other:
        return int(version) > int(other)
    return recorded >= before


class LastWriterWins:
    """A row being folded: a copy, so the original row is unchanged.

    The JSON column `marks` holds the order of each value and step, the JSON column `times` the time of each step.
    """

    def __init__(self, row: Row | None, empty: Row) -> None:
        start = dict(row if row is not None else empty)
        self.marks: dict[str, str] = dict(start.pop("marks"))
        self.times: dict[str, str] = dict(start.pop("times"))
        self.values: dict[str, Any] = start

    def write(self, order: str, values: Mapping[str, Any]) -> None:
        """Set values, where no newer one is known; None is skipped."""
        wins: dict[str, bool] = {}  # cached: the values of a row have few different orders
        for name, value in values.items():
            if value is None:
                continue
            known = self.marks.get(name, "")
            if known not in wins:
                wins[known] = is_newer(order, known)
            if wins[known]:
                self.values[name] = value
                self.marks[name] = order

    def clear(self, order: str, names: Iterable[str]) -> None:
        """Set values to None, where no newer one is known."""
        for name in names:
            if is_newer(order, self.marks.get(name, "")):
                self.values[name] = None
                self.marks[name] = order

    def step(self, order: str, name: str, time: str) -> None:
        """Record that a step was reached, if this order is newer."""
        if is_newer(order, self.reached(name)):
            self.times[name] = time
            self.marks[_step(name)] = order

    def take_over(self, other: Row) -> None:
        """Merge another row about the same object."""
        for mark, order in other["marks"].items():
            if mark.startswith("@"):
                self.step(order, mark[1:], other["times"][mark[1:]])
            elif other[mark] is None:
                self.clear(order, [mark])
            else:
                self.write(order, {mark: other[mark]})

    def reached(self, name: str) -> str:
        """The newest order at which this step was reached, "" if never."""
        return self.marks.get(_step(name), "")

    def after(self, name: str, other: str) -> bool:
        """Whether a step was reached, and not before the other one."""
        return bool(self.reached(name)) and is_newer(self.reached(name), self.reached(other))

    def is_last(self, name: str, others: Iterable[str]) -> bool:
        """Whether a step was reached, and none of these marks has been written since."""
        reached = self.reached(name)
        return bool(reached) and all(is_newer(reached, self.marks.get(other, "")) for other in others)

    def row(self, **derived: Any) -> dict[str, Any]:
        """The current row, with its derived columns."""
        return {**self.values, **derived, "marks": self.marks, "times": self.times}


def _step(name: str) -> str:
    return f"@{name}"
