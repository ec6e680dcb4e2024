"""Who stands still is told and ended by what was seen of it, look by look; who slept together with the supervisor is not."""

from __future__ import annotations

from hub.ops.programs import BROKER_STALL_LIMITS, POLL_INTERVAL_S, Liveness, StallDetector, StallLimits


def looks(stillness: StallDetector, count: int, *, beaten: bool, stopped: bool, begin: float = 0.0) -> list[Liveness]:
    return [stillness.poll(begin + n * POLL_INTERVAL_S, beaten=beaten, is_stopped=stopped) for n in range(count)]


def test_a_stopped_program_is_seen_and_ended_soon() -> None:
    found = looks(StallDetector(), 12, beaten=False, stopped=True)
    assert found.index("frozen") == StallLimits().stopped
    assert found.index("dead") == StallLimits().stopped_end <= 10


def test_a_deaf_program_gets_the_time_that_a_busy_machine_may_take() -> None:
    stillness = StallDetector()
    assert set(looks(stillness, 3, beaten=True, stopped=False)) == {"well"}
    found = looks(stillness, 60, beaten=False, stopped=False, begin=3.0)
    assert found.index("frozen") == StallLimits().deaf - 1
    assert found.index("dead") == StallLimits().deaf_end - 1
    assert stillness.poll(70.0, beaten=True, is_stopped=False) == "well"


def test_a_program_that_has_not_beaten_yet_is_starting() -> None:
    assert set(looks(StallDetector(), 300, beaten=False, stopped=False)) == {"well"}


def test_a_machine_that_was_suspended_blames_nobody() -> None:
    for stopped in (False, True):
        stillness = StallDetector()
        looks(stillness, 3, beaten=True, stopped=False)
        assert stillness.poll(3600.0, beaten=False, is_stopped=stopped) == "well"
        assert stillness.poll(3601.0, beaten=True, is_stopped=False) == "well"


def test_the_broker_may_stand_still_for_half_a_minute() -> None:
    stillness = StallDetector(BROKER_STALL_LIMITS)
    looks(stillness, 3, beaten=True, stopped=False)
    assert "dead" not in looks(stillness, 45, beaten=False, stopped=True, begin=3.0)
    assert "dead" in looks(stillness, 30, beaten=False, stopped=True, begin=48.0)
