"""How fast an instance is called."""

from __future__ import annotations

import pytest

from hub.executor.instances import RateLimiter
from hub.kit.connector import RateLimits


@pytest.mark.parametrize("per_second", [0.2, 2.5, 20.0, 333.0])
def test_a_busy_instance_gets_its_rate(per_second: float) -> None:
    pace, now, calls = RateLimiter(RateLimits(per_second=per_second, at_once=1)), 1000.0, 0
    while calls < 40:
        wait = pace.take(now)
        calls += not wait
        now += wait or 0.0
    assert calls / (now - 1000.0) == pytest.approx(per_second, rel=0.05)


def test_after_a_rest_as_many_as_may_run_at_once_begin_together() -> None:
    pace = RateLimiter(RateLimits(per_second=1.0, at_once=3))
    assert [pace.take(50.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert pace.take(50.0) == pytest.approx(1.0, abs=0.01)
