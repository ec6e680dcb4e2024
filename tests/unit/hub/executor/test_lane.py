"""How many calls of one instance may begin: those that are under way count, their answers on the way to the ledger hardly."""

from __future__ import annotations

from hub.errors import RetryableError
from hub.executor.instances import FAILURE_THRESHOLD, InstanceState
from hub.executor.retry_policy import Failure
from hub.kit.connector import Connector, RateLimits
from hub.runtime.clock import SystemClock
from tests.executor_bench import FakeSystem, connector


def lane(at_once: int = 4) -> InstanceState:
    system: Connector = connector("pm", FakeSystem(limits=RateLimits(10_000, at_once)))
    return InstanceState("pm", SystemClock(), system)


def begun(at: InstanceState, *commands: str) -> InstanceState:
    for each in commands:
        at.begin(each)
    return at


def test_no_more_calls_are_under_way_than_may_be() -> None:
    assert begun(lane(4), "a", "b", "c").capacity() == 1
    assert begun(lane(4), "a", "b", "c", "d").capacity() == 0


def test_an_answer_that_waits_to_be_written_takes_no_other_calls_turn() -> None:
    pm = begun(lane(2), "a", "b")
    pm.answered("a")
    assert pm.capacity() == 1
    assert pm.running == {"a", "b"}
    pm.finish("a")
    assert pm.capacity() == 1


def test_while_nothing_can_be_written_answers_do_not_pile_up() -> None:
    pm = begun(lane(2), "a", "b")
    pm.answered("a")
    pm.answered("b")
    assert begun(pm, "c", "d").capacity() == 0
    pm.answered("c")
    pm.answered("d")
    assert pm.capacity() == 0  # as many again as may be called: each holds a thread
    pm.finish("a")
    assert pm.capacity() == 1


def test_a_call_that_did_not_begin_frees_its_place() -> None:
    pm = begun(lane(1), "a")
    pm.finish("a")
    assert pm.capacity() == 1


def test_a_trial_is_alone_until_it_is_answered() -> None:
    pm = lane(4)
    for number in range(FAILURE_THRESHOLD):
        pm.record_outcome(
            str(number), Failure(RetryableError("HUB-E4001", instance="pm", url="", reason=""), False), 0.0
        )
    pm.breaker.until = 0.0
    assert pm.capacity() == 1
    assert begun(pm, "a").capacity() == 0
