"""What follows from how a call ended: every row of the state machine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from hub.errors import FatalError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.executor.argument_resolution import ResolvedCommand
from hub.executor.retry_policy import MAX_CRASHES, MAX_DELAY_S, CommandAttempt, Failure, decide
from hub.kit.connector import Effect, Idempotency, RateLimits
from tests.executor_bench import command

NOW = datetime(2026, 11, 20, 2, 0, tzinfo=UTC)
AWAY = RetryableError("HUB-E4005", instance="pm", reason="away")
DOUBT = UncertainError("HUB-E4002", instance="pm", reason="no answer")
UNREAD = UnreadableError("HUB-E4203", instance="pm", url="http://pm", answer="<html>")
NEVER = RejectedError("HUB-E4006", instance="pm", reason="no such project")
REFUSED = FatalError("HUB-E4003", instance="pm", login="hub")


def call(once: Idempotency = Idempotency.KEY, attempts: int = 1) -> CommandAttempt:
    asked = command()
    prepared = ResolvedCommand(asked, asked, asked.arguments)
    return CommandAttempt(prepared, asked.to_json(), "me", attempts, False, once, RateLimits(settle=2.0), 0.0)


def seconds(due: datetime | None) -> float:
    assert due is not None
    return (due - NOW).total_seconds()


def test_an_effect_is_done() -> None:
    assert decide(call(), Effect("7"), NOW).state == "DONE"


@pytest.mark.parametrize("once", list(Idempotency))
def test_what_surely_was_not_done_is_tried_again_for_ever_and_ever_later(once: Idempotency) -> None:
    waits = []
    for attempts in range(1, 200):
        verdict = decide(call(once, attempts), Failure(AWAY), NOW)
        assert (verdict.state, verdict.counts) == ("RETRY", True)
        waits.append(seconds(verdict.due))
    assert 0.25 <= waits[0] <= 0.5
    assert waits[0] < waits[2] < waits[5]
    assert max(waits) <= MAX_DELAY_S
    assert len(set(waits[20:])) > 100  # commands that failed together come back apart


def test_retry_after_is_kept_exactly() -> None:
    asked_to_wait = RetryableError("HUB-E4004", retry_after=37.0, instance="pm")
    assert seconds(decide(call(attempts=9), Failure(asked_to_wait), NOW).due) == 37.0
    doubtful = UncertainError("HUB-E4002", retry_after=37.0, instance="pm", reason="500")
    assert seconds(decide(call(), Failure(doubtful), NOW).due) == 37.0


@pytest.mark.parametrize("once", [Idempotency.KEY, Idempotency.LOOKUP])
def test_a_doubtful_call_is_looked_into_after_the_system_has_settled(once: Idempotency) -> None:
    verdict = decide(call(once), Failure(DOUBT), NOW)
    assert (verdict.state, seconds(verdict.due)) == ("UNKNOWN", 2.0)
    assert seconds(decide(call(once, attempts=30), Failure(DOUBT), NOW).due) > 2.0


def test_a_doubtful_call_that_cannot_be_looked_up_asks_a_person() -> None:
    verdict = decide(call(Idempotency.NONE), Failure(DOUBT), NOW)
    assert verdict.state == "PARKED"
    assert verdict.error is not None and verdict.error.code == "HUB-E4065"
    assert verdict.error.seen["cause"] == "HUB-E4002"
    assert not verdict.doubtful  # a person who asks for it again has looked


@pytest.mark.parametrize("looking", [False, True])
@pytest.mark.parametrize("once", [Idempotency.KEY, Idempotency.LOOKUP])
def test_answers_that_tell_nothing_have_an_end_and_the_doubt_stays(once: Idempotency, looking: bool) -> None:
    asked = call(once, attempts=40)
    for times in range(1, asked.limits.tries):
        assert decide(asked, Failure(UNREAD, looking, unread=times), NOW).state == "UNKNOWN"
    verdict = decide(asked, Failure(UNREAD, looking, unread=asked.limits.tries), NOW)
    assert (verdict.state, verdict.doubtful) == ("PARKED", True)
    assert verdict.error is not None and verdict.error.code == "HUB-E4071"
    assert "<html>" in verdict.error.message()


@pytest.mark.parametrize("error", [AWAY, DOUBT])
def test_a_look_that_fails_leaves_the_doubt(error: RetryableError) -> None:
    assert decide(call(Idempotency.LOOKUP), Failure(error, looking=True), NOW).state == "UNKNOWN"


def test_a_refused_command_parks() -> None:
    verdict = decide(call(), Failure(NEVER), NOW)
    assert (verdict.state, verdict.error, verdict.doubtful) == ("PARKED", NEVER, False)


def test_a_refused_look_parks_with_its_doubt() -> None:
    verdict = decide(call(Idempotency.LOOKUP), Failure(NEVER, looking=True), NOW)
    assert (verdict.state, verdict.doubtful) == ("PARKED", True)


def test_refused_credentials_are_no_attempt() -> None:
    verdict = decide(call(Idempotency.NONE), Failure(REFUSED), NOW)
    assert (verdict.state, verdict.counts, verdict.due) == ("RETRY", False, NOW)
    assert decide(call(Idempotency.LOOKUP), Failure(REFUSED, looking=True), NOW).state == "UNKNOWN"


def test_code_that_breaks_is_a_doubt_and_too_often_a_bug() -> None:
    broke = Failure(ZeroDivisionError("secret"), crashes=1)
    assert decide(call(Idempotency.LOOKUP), broke, NOW).state == "UNKNOWN"
    assert decide(call(Idempotency.NONE), broke, NOW).state == "PARKED"
    verdict = decide(call(Idempotency.LOOKUP), replace(broke, crashes=MAX_CRASHES), NOW)
    assert (verdict.state, verdict.doubtful) == ("PARKED", True)
    assert verdict.error is not None and verdict.error.code == "HUB-E4066"
    assert "secret" not in verdict.error.message("en")
    assert "ZeroDivisionError" in verdict.error.message("en")
