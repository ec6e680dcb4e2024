"""How many calls a second an instance gets."""

from __future__ import annotations

from pyrate_limiter import Rate, RateItem, StateBucket

from hub.connector import Limits

TICKS = 1_000_000
"""Of our clock, in a second. The library's unit is its caller's to choose; a whole millisecond would be too coarse."""


class Pace:
    """A token bucket of `at_once` tokens that fills by `per_second`. Times are monotonic seconds, given by the caller."""

    def __init__(self, limits: Limits) -> None:
        ticks = max(1, round(10 * TICKS / limits.per_second))
        self._bucket = StateBucket([Rate(10, ticks, burst=max(1, limits.at_once))])

    def take(self, now: float) -> float:
        """Take one token: 0.0, or the seconds after which one will be there."""
        item = RateItem("call", int(now * TICKS))
        if self._bucket.put(item):
            return 0.0
        wait = self._bucket.waiting(item)
        assert isinstance(wait, int)  # a coroutine only for stores over a network
        return max(wait, 1) / TICKS
