"""How many calls a second an instance gets."""

from __future__ import annotations

from pyrate_limiter import Rate, RateItem, StateBucket

from hub.connector import Limits


class Pace:
    """A token bucket of `at_once` tokens that fills by `per_second`. Times are monotonic seconds, given by the caller."""

    def __init__(self, limits: Limits) -> None:
        limit = max(1, round(limits.per_second * 10))
        interval = max(1, round(limit / limits.per_second * 1000))
        self._bucket = StateBucket([Rate(limit, interval, burst=max(1, limits.at_once))])

    def take(self, now: float) -> float:
        """Take one token: 0.0, or the seconds after which one will be there."""
        item = RateItem("call", int(now * 1000))
        if self._bucket.put(item):
            return 0.0
        wait = self._bucket.waiting(item)
        assert isinstance(wait, int)  # a coroutine only for stores over a network
        return max(wait, 1) / 1000
