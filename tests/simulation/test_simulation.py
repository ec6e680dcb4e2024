"""Histories with crashes, delays and doubles: every seed that once failed, and a sample whose seeds stand fixed."""

from __future__ import annotations

import pytest

from hub.processor.state import PART_SEPARATOR
from schemas.topics import STATE
from tests.simulation.running import kept_seeds, play

SAMPLE = range(70_000, 70_040)
PUT_APART = {
    "hub.processor.state.LARGE_CASE_BYTES": 300,
    "hub.processor.folding.MAX_CASE_BYTES": 2000,
    "hub.engine.case.MAX_HELD_INLINE": 2,
    "hub.engine.parking.MAX_RETRIED_EVENTS": 3,
}
"""As if every case were large."""


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_history_that_once_failed(seed: int) -> None:
    outcome = play(seed)
    assert not outcome.broken, outcome.shown()


@pytest.mark.parametrize("first", SAMPLE[::10])
def test_a_sample_of_histories(first: int) -> None:
    for seed in range(first, first + 10):
        outcome = play(seed)
        assert not outcome.broken, outcome.shown()


@pytest.mark.parametrize("first", SAMPLE[::10])
def test_a_sample_of_histories_whose_cases_are_put_apart(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PUT_APART.items():
        monkeypatch.setattr(name, value)
    parts = 0
    for seed in range(first + 1000, first + 1008):
        outcome = play(seed)
        assert not outcome.broken, outcome.shown()
        keys = [
            each.key for (topic, _), found in outcome.world.log.records.items() if topic == STATE.name for each in found
        ]
        parts += sum(PART_SEPARATOR in (key or b"") for key in keys)
    assert parts


def test_a_seed_gives_the_same_history_again() -> None:
    seed = SAMPLE[3]
    assert play(seed).world.chance.story == play(seed).world.chance.story
