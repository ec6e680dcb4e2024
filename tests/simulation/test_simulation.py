"""Histories with crashes, delays and doubles: every seed that once failed, and a sample whose seeds stand fixed."""

from __future__ import annotations

import pytest

from tests.simulation.running import kept_seeds, play

SAMPLE = range(70_000, 70_040)


@pytest.mark.parametrize("seed", kept_seeds())
def test_a_history_that_once_failed(seed: int) -> None:
    outcome = play(seed)
    assert not outcome.broken, outcome.shown()


@pytest.mark.parametrize("first", SAMPLE[::10])
def test_a_sample_of_histories(first: int) -> None:
    for seed in range(first, first + 10):
        outcome = play(seed)
        assert not outcome.broken, outcome.shown()


def test_a_seed_gives_the_same_history_again() -> None:
    seed = SAMPLE[3]
    assert play(seed).world.chance.story == play(seed).world.chance.story
