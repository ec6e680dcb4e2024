"""How growth is told."""

from __future__ import annotations

import os

import pytest

from tests.faults.growth import LONG, WARM, Growth, Sample


def grown(*samples: Sample) -> dict[str, dict[str, float]]:
    growth = Growth()
    growth.samples["processor", 7].extend(samples)
    return growth.an_hour()


def test_what_comes_after_the_start_counts_by_the_hour() -> None:
    start = [Sample(float(at), 100.0 + at / 10, 5) for at in range(0, int(WARM), 10)]
    after = [Sample(WARM + at, 190.0 + at / 1800, 5 + at // 10) for at in range(0, int(2 * LONG), 10)]
    assert grown(*start, *after) == {"processor": {"mb": 2.0, "files": 360.0}}


def test_a_short_life_tells_nothing() -> None:
    assert grown(*(Sample(float(at), float(at), at) for at in range(int(WARM + LONG) - 10))) == {}


def test_a_program_that_is_gone_leaves_nothing() -> None:
    growth = Growth()
    with pytest.raises(OSError, match="No such file"):
        growth.note("me", 2**22 + 1, 0.0)
    assert growth.peak_mb() == {}


def test_a_program_is_measured_as_it_is() -> None:
    growth = Growth()
    growth.note("me", os.getpid(), 0.0)
    sample = growth.samples["me", os.getpid()][0]
    assert 5 < sample.mb < 5000
    assert sample.files > 2
    assert sample.mb <= growth.peak_mb()["me"]
