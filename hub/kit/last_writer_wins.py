"""Rows made of registers: each value keeps the order of the event that told it, and the newest order wins.

Events that come twice or late leave the same row, and so do two that come from two partitions in either order. That is what
lets a rebuild be compared byte by byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hub.kit.projection import Row
from schemas.envelope import Event


def order_of(event: Event) -> str:
    """Where an event stands among those of its subject; to be compared by `is_newer`."""
    version = event.subjectversion or ""
    counted = version if version.isascii() and version.isdigit() else ""
    return f"{counted}|{event.recordedtime}|{event.id}"


def is_newer(order: str, than: str) -> bool:
    """Whether news of this order counts over news of the other: always over none, and over itself.

    Two versions of the source are compared as numbers. News without one (our own effects, buttons) counts by when the hub
    recorded it, since the clocks of two systems cannot be compared.
    """
    version, _, recorded = order.partition("|")
    other, _, before = than.partition("|")
    if version and other and version != other:
        return int(version) > int(other)
    return recorded >= before


class LastWriterWins:
    """A row being folded: starts as a copy, so the row it came from stays as it was.

    The row keeps the orders in its JSON column `marks`, and the time of each step in its JSON column `times`.
    """

    def __init__(self, row: Row | None, empty: Row) -> None:
        start = dict(row if row is not None else empty)
        self.marks: dict[str, str] = dict(start.pop("marks"))
        self.times: dict[str, str] = dict(start.pop("times"))
        self.values: dict[str, Any] = start

    def tell(self, order: str, values: Mapping[str, Any]) -> None:
        """Set what is told, where nothing newer is known; None tells nothing."""
        judged: dict[str, bool] = {}  # the values of a row have few different orders
        for name, value in values.items():
            if value is None:
                continue
            than = self.marks.get(name, "")
            if than not in judged:
                judged[than] = is_newer(order, than)
            if judged[than]:
                self.values[name] = value
                self.marks[name] = order

    def clear(self, order: str, names: Iterable[str]) -> None:
        """Empty what an event empties, where nothing newer is known."""
        for name in names:
            if is_newer(order, self.marks.get(name, "")):
                self.values[name] = None
                self.marks[name] = order

    def step(self, order: str, name: str, time: str) -> None:
        """Note that a step was reached."""
        if is_newer(order, self.reached(name)):
            self.times[name] = time
            self.marks[_step(name)] = order

    def take_over(self, other: Row) -> None:
        """Merge what another row knows of the same thing."""
        for mark, order in other["marks"].items():
            if mark.startswith("@"):
                self.step(order, mark[1:], other["times"][mark[1:]])
            elif other[mark] is None:
                self.clear(order, [mark])
            else:
                self.tell(order, {mark: other[mark]})

    def reached(self, name: str) -> str:
        """The order of the newest time this step was reached, "" if never."""
        return self.marks.get(_step(name), "")

    def after(self, name: str, other: str) -> bool:
        """Whether a step was reached, and not before another was."""
        return bool(self.reached(name)) and is_newer(self.reached(name), self.reached(other))

    def is_last(self, name: str, others: Iterable[str]) -> bool:
        """Whether a step was reached, and nothing was told of these marks since."""
        reached = self.reached(name)
        return bool(reached) and all(is_newer(reached, self.marks.get(other, "")) for other in others)

    def row(self, **derived: Any) -> dict[str, Any]:
        """The row as it stands, with the columns that follow from the rest."""
        return {**self.values, **derived, "marks": self.marks, "times": self.times}


def _step(name: str) -> str:
    return f"@{name}"
