"""When an instance may be called, by a clock that the test moves."""

from __future__ import annotations

from hub.executor.instances import FAILURE_THRESHOLD, MAX_PAUSE_S, MAX_REFUSED_PAUSE_S, CircuitBreaker


def broken(at: float = 100.0) -> CircuitBreaker:
    gate = CircuitBreaker()
    told = [gate.failed(f"c-{n}", at - 1, at) for n in range(FAILURE_THRESHOLD)]
    assert told == [False] * (FAILURE_THRESHOLD - 1) + [True]
    return gate


def test_a_few_failures_change_nothing_and_a_success_forgets_them() -> None:
    gate = CircuitBreaker()
    for n in range(3 * FAILURE_THRESHOLD):
        gate.failed(f"c-{n}", 1.0, 2.0)
        assert gate.answered(1.0) is False
    assert gate.capacity(2.0, running=2, at_once=8) == 6


def test_one_command_that_always_fails_is_no_outage() -> None:
    gate = CircuitBreaker()
    assert not any(gate.failed("poison", float(n), float(n)) for n in range(100))
    assert gate.capacity(100.0, 0, 8) == 8


def test_many_in_a_row_break_it_and_then_one_call_tries() -> None:
    gate = broken(at=100.0)
    assert gate.capacity(100.9, 0, 8) == 0
    assert gate.capacity(101.0, 0, 8) == 1
    assert gate.capacity(101.0, 1, 8) == 0
    assert gate.answered(101.0) is True
    assert gate.capacity(101.0, 0, 8) == 8


def test_each_failed_trial_doubles_the_wait_up_to_a_minute() -> None:
    gate, now, waits = broken(), 100.0, []
    for _ in range(10):
        waits.append(gate.until - now)
        now = gate.until
        assert gate.failed("c-1", now, now) is False
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == MAX_PAUSE_S


def test_calls_that_were_let_through_together_fail_together_and_count_once() -> None:
    gate = broken(at=100.0)
    assert [gate.failed("c-1", 100.001 + n / 1000, 100.1) for n in range(8)] == [False] * 8
    assert [gate.refuse(100.001 + n / 1000, 100.1) for n in range(8)] == [True] + [False] * 7
    assert gate.until == 101.0


def test_calls_that_began_before_the_outage_neither_lengthen_nor_end_it() -> None:
    gate = broken(at=100.0)
    assert gate.failed("c-1", 99.0, 100.5) is False
    assert gate.answered(99.0) is False
    assert gate.capacity(100.5, 0, 8) == 0
    assert gate.until == 101.0


def test_the_wait_that_a_system_asks_for_is_exact_and_no_outage() -> None:
    gate = CircuitBreaker()
    gate.wait(100.0, 7.0)
    assert gate.capacity(106.999, 0, 8) == 0
    assert gate.capacity(107.0, 0, 8) == 8
    assert gate.answered(107.0) is False


def test_a_refusal_is_news_once_until_it_ends() -> None:
    gate, now = CircuitBreaker(), 100.0
    news = []
    for _ in range(12):
        news.append(gate.refuse(now, now))
        now = gate.until
    assert news == [True] + [False] * 11
    assert gate.broken_at is not None
    assert gate.until - gate.broken_at == MAX_REFUSED_PAUSE_S
    assert gate.refused
    assert gate.answered(now) is True
    assert gate.refuse(now, now) is True
