"""What follows for a command from how its call ended. Pure: every rule about trying again is here."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zlib import crc32

from hub.errors import FatalError, HubError, RejectedError, RetryableError, UncertainError, UnreadableError
from hub.executor.argument_resolution import Prepared
from hub.executor.command_events import said
from hub.kit.connector import Effect, Idempotency, RateLimits

FIRST, LONGEST = 0.5, 60.0
"""Seconds until a failed call is tried again: at first, and at most."""
CRASHES = 5
"""How often in a row a connector's code may break on a command before a person is asked."""


@dataclass(frozen=True)
class CommandAttempt:
    """A command on its way: SENDING under `owner`, its attempts counted with this one."""

    prepared: Prepared
    raw: bytes
    owner: str
    attempts: int
    doubtful: bool
    """An earlier call may have done it."""
    once: Idempotency
    limits: RateLimits
    give_up_at: float
    """Monotonic seconds after which the ledger may think us dead: no request may begin later."""

    @property
    def id(self) -> str:
        """The command's."""
        return self.prepared.command.id


@dataclass(frozen=True)
class Failure:
    """A call that gave no effect. `looking`: it broke while the system was asked whether it had been done before."""

    error: Exception
    looking: bool = False
    crashes: int = 0
    """How often in a row the connector's code has broken on this command, this time included."""
    unread: int = 0
    """How often this command was answered in a way that tells nothing, this time included."""


@dataclass(frozen=True)
class Decision:
    """The state that a command goes to, when it is due again, and what is said of it."""

    state: str
    effect: Effect | None = None
    error: HubError | None = None
    due: datetime | None = None
    counts: bool = True
    """Whether the call counts as an attempt."""
    doubtful: bool = False
    """Parked while it may have been done: if it is tried again, the system is asked first."""


def decide(call: CommandAttempt, ended: Effect | Failure, now: datetime) -> Decision:
    """Say what becomes of a command."""
    if isinstance(ended, Effect):
        return Decision("DONE", effect=ended)
    waiting = "UNKNOWN" if ended.looking else "RETRY"
    match ended.error:
        case FatalError() as error:
            return Decision(waiting, error=error, due=now, counts=False)
        case RejectedError() as error:
            return Decision("PARKED", error=error, doubtful=ended.looking)
        case UnreadableError() as error if ended.unread >= call.limits.tries:
            return _given_up(call, error, ended.unread)
        case UncertainError() as error if not ended.looking:
            return _doubt(call, error, now, error.retry_after)
        case RetryableError() as error:
            return Decision(waiting, error=error, due=now + _pause(call, error.retry_after))
        case error:
            return _crashed(
                call, ended, RejectedError("HUB-E4066", **seen_of(call.prepared.command.instance, error)), now
            )


def _doubt(call: CommandAttempt, error: HubError, now: datetime, retry_after: float | None = None) -> Decision:
    """Nobody knows whether it was done: look after a while, repeat it under its key, or ask a person."""
    if call.once is Idempotency.NEITHER:
        told = {"instance": call.prepared.command.instance, "reason": said(error), "cause": error.code}
        return Decision("PARKED", error=RejectedError("HUB-E4065", **{**error.seen, **told}))
    settle = timedelta(seconds=max(call.limits.settle, retry_after or 0.0))
    later = settle if call.attempts <= 1 else max(settle, _pause(call, None))
    return Decision("UNKNOWN", error=error, due=now + later)


def _given_up(call: CommandAttempt, error: HubError, tries: int) -> Decision:
    """Answered often enough, and never readably: what is wrong will stay so until a person looks at it."""
    told = {"instance": call.prepared.command.instance, "tries": tries, "reason": said(error), "cause": error.code}
    parked = RejectedError("HUB-E4071", place=error.place, **{**error.seen, **told})
    return Decision("PARKED", error=parked, doubtful=True)


def _crashed(call: CommandAttempt, ended: Failure, error: RejectedError, now: datetime) -> Decision:
    if ended.crashes >= CRASHES:
        return Decision("PARKED", error=error, doubtful=True)
    return _doubt(call, error, now)


def _pause(call: CommandAttempt, retry_after: float | None) -> timedelta:
    """What the system asks for, exactly; else twice as long each time, each command a little apart from the others."""
    if retry_after is not None:
        return timedelta(seconds=retry_after)
    apart = 0.5 + crc32(f"{call.id}/{call.attempts}".encode()) / 2**33
    return timedelta(seconds=min(LONGEST, FIRST * 2 ** min(call.attempts - 1, 16)) * apart)


def seen_of(instance: str, error: Exception) -> dict[str, Any]:
    """What broke and where, without the values that it broke on: those may be secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
    return {"instance": instance, "error": type(error).__name__, "where": place}
