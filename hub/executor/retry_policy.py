"""Decides the next state of a command from how its call ended. Pure: every rule about retries is here."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.executor.argument_resolution import ResolvedCommand
from hub.executor.command_events import error_message
from hub.kit.connector import Effect, Idempotency, RateLimits

FIRST_DELAY_S, MAX_DELAY_S = 0.5, 60.0
"""Seconds until a failed call is retried: the first delay, and the longest."""
MAX_CRASHES = 5
"""Crashes of a connector's code in a row on one command, after which the command parks for a person to decide."""


@dataclass(frozen=True)
class CommandAttempt:
    """One call of a command: SENDING under `owner`; `attempts` includes this call."""

    resolved: ResolvedCommand
    raw: bytes
    owner: str
    attempts: int
    doubtful: bool
    """Whether an earlier call may have done it."""
    idempotency: Idempotency
    limits: RateLimits
    give_up_at: float
    """Monotonic seconds after which the ledger may count this executor as dead: no request may begin later."""

    @property
    def id(self) -> str:
        """The command's id."""
        return self.resolved.command.id


@dataclass(frozen=True)
class Failure:
    """A call that gave no effect. `looking`: it failed during the lookup of whether an earlier call had done the work."""

    error: Exception
    looking: bool = False
    crashes: int = 0
    """Crashes of the connector's code in a row on this command, this one included."""
    unread: int = 0
    """Unreadable responses to this command so far, this one included."""


@dataclass(frozen=True)
class Decision:
    """The state that a command moves to, when it is due again, and the error or effect to record."""

    state: str
    effect: Effect | None = None
    error: HubError | None = None
    due: datetime | None = None
    counts: bool = True
    """Whether the call counts as an attempt."""
    doubtful: bool = False
    """Whether it parks while it may have been done: a retry then looks it up in the system first."""


def decide(call: CommandAttempt, outcome: Effect | Failure, now: datetime) -> Decision:
    """Return the next state of a command."""
    if isinstance(outcome, Effect):
        return Decision("DONE", effect=outcome)
    waiting = "UNKNOWN" if outcome.looking else "RETRY"
    match outcome.error:
        case FatalError() as error:
            return Decision(waiting, error=error, due=now, counts=False)
        case RejectedError() as error:
            return Decision("PARKED", error=error, doubtful=outcome.looking)
        case UnreadableError() as error if outcome.unread >= call.limits.tries:
            return _exhausted(call, error, outcome.unread)
        case UncertainError() as error if not outcome.looking:
            return _unknown(call, error, now, error.retry_after)
        case RetryableError() as error:
            return Decision(waiting, error=error, due=now + _delay(call, error.retry_after))
        case error:
            return _crashed(
                call, outcome, RejectedError("HUB-E4066", **crash_context(call.resolved.command.instance, error)), now
            )


def _unknown(call: CommandAttempt, error: HubError, now: datetime, retry_after: float | None = None) -> Decision:
    """It is not known whether the work was done: look it up later, repeat it under its idempotency key, or park it for a person."""
    if call.idempotency is Idempotency.NONE:
        context = {"instance": call.resolved.command.instance, "reason": error_message(error), "cause": error.code}
        return Decision("PARKED", error=RejectedError("HUB-E4065", **{**error.seen, **context}))
    settle = timedelta(seconds=max(call.limits.settle, retry_after or 0.0))
    later = settle if call.attempts <= 1 else max(settle, _delay(call, None))
    return Decision("UNKNOWN", error=error, due=now + later)


def _exhausted(call: CommandAttempt, error: HubError, tries: int) -> Decision:
    """Every response so far was unreadable: retries will not help until a person has looked into it."""
    context = {
        "instance": call.resolved.command.instance,
        "tries": tries,
        "reason": error_message(error),
        "cause": error.code,
    }
    parked = RejectedError("HUB-E4071", place=error.place, **{**error.seen, **context})
    return Decision("PARKED", error=parked, doubtful=True)


def _crashed(call: CommandAttempt, outcome: Failure, error: RejectedError, now: datetime) -> Decision:
    if outcome.crashes >= MAX_CRASHES:
        return Decision("PARKED", error=error, doubtful=True)
    return _unknown(call, error, now)


def _delay(call: CommandAttempt, retry_after: float | None) -> timedelta:
    """Exactly what the system requests by Retry-After; else exponential back-off with a jitter derived from the command's id."""
    if retry_after is not None:
        return timedelta(seconds=retry_after)
    jitter = 0.5 + crc32(f"{call.id}/{call.attempts}".encode()) / 2**33
    return timedelta(seconds=min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** min(call.attempts - 1, 16)) * jitter)


def crash_context(instance: str, error: Exception) -> dict[str, Any]:
    """The error's type and where it was raised, without the values involved: those may be secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    return {"instance": instance, "error": type(error).__name__, "where": place}
