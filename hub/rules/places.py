"""YAML files of the user's, read with the place of every value, so that an error can point at it."""

from __future__ import annotations


class Filled(str):
    """A text in which `${env:NAME}` was replaced. `spans` are (start, end, length before) of what was filled in."""

    spans: tuple[tuple[int, int, int], ...] = ()

    def is_filled(self, at: int) -> bool:
        """Whether this character came from the environment: no expression starts there."""
        return any(start <= at < end for start, end, _ in self.spans)

    def original(self, at: int) -> int:
        """Where this character stood before filling in."""
        return at + sum(before - (end - start) for start, end, before in self.spans if end <= at)
