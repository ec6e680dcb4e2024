"""One call, from SENDING to its end in the ledger. Runs in a thread of the instance's crew and never raises.

Writes what became of a command: its state, its event, its links, all in the transaction of the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection

from hub.errors import HubError, RejectedError, RetryableError, UnreadableError
from hub.executor import command_events
from hub.executor.instances import InstanceState
from hub.executor.retry_policy import CommandAttempt, Decision, Failure, decide, seen_of
from hub.intake import correlation
from hub.kit.connector import CommandSink, Effect, Fact, Idempotency
from hub.kit.facts import Door, event_of
from hub.ledger import commands, links, outbox, parked, timers
from hub.ledger.commands import End
from hub.ledger.ledger import Ledger
from hub.runtime import metrics
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from schemas.envelope import HUB, Command, Event, format_time, parse_time

log = structlog.get_logger(__name__)
MOST_KEPT = 32 * 1024
"""Bytes of a system's answer that are kept; a longer one is not needed to say what was done."""
_CLEAN: dict[str, Any] = {"due_at": None, "deadline": None, "code": None, "reason": None}


def end_all(conn: Connection, ended: Sequence[tuple[CommandAttempt, Decision]], now: datetime) -> list[bool]:
    """Write verdicts down. False for a command that is no longer its call's: of that nothing is written."""
    plain = [(call, verdict) for call, verdict in ended if verdict.state != "PARKED"]
    ours = commands.end_all(conn, [_end(call, verdict, now) for call, verdict in plain], format_time(now))
    _done(conn, [(call, verdict.effect) for call, verdict in plain if verdict.effect and call.id in ours], now)
    return [_park(conn, *each, now) if each[1].state == "PARKED" else each[0].id in ours for each in ended]


def _end(call: CommandAttempt, verdict: Decision, now: datetime) -> End:
    if verdict.effect is not None:
        response = _as_json(verdict.effect.response).decode()
        return End(call.id, call.owner, "DONE", call.attempts, effect_id=_effect_id(verdict.effect), response=response)
    assert verdict.error is not None  # only DONE has no error
    attempts = call.attempts if verdict.counts else call.attempts - 1
    due, said = format_time(verdict.due or now), command_events.said(verdict.error)
    return End(call.id, call.owner, verdict.state, attempts, due, verdict.error.code, said)


def _effect_id(effect: Effect) -> str | None:
    return command_events.plain(effect.id or "") or None


def _park(conn: Connection, call: CommandAttempt, verdict: Decision, now: datetime) -> bool:
    assert verdict.error is not None  # only DONE has no error
    command = call.prepared.command
    return park(conn, command, call.raw, call.owner, call.attempts, verdict.error, now, verdict.doubtful)


def _done(conn: Connection, done: Sequence[tuple[CommandAttempt, Effect]], now: datetime) -> None:
    """Link what was made, and tell of it; then what its system says of objects."""
    made, told = [], []
    for call, effect in done:
        command, effect_id = call.prepared.command, _effect_id(effect)
        ref = command_events.made_by(command, effect_id)
        if ref is not None:
            made.append((ref, command.case, command.id))
        told.append(command_events.result(command, call.prepared.asked, effect_id, call.attempts, now))
    links.link_made(conn, made)
    outbox.record(conn, told, HUB)
    for call, effect in done:
        for fact in effect.facts:
            _tell(conn, call.prepared.command, fact, now)


class _AsNamed:
    """People in an effect's facts are named as the command named them."""

    def person_of(self, instance: str, account: str) -> str | None:
        return None


def _tell(conn: Connection, command: Command, fact: Fact, now: datetime) -> None:
    """Record what an effect says of an object. The effect is there whatever it says, so what is no event is only logged."""
    try:
        event = event_of(fact, Door(command.instance, _AsNamed(), now, command.id))
    except RejectedError as error:
        log.error("effect.not_told", command=command.id, **error.fields())
        return
    outbox.record(conn, [correlation.under(event, correlation.settle(conn, event))], command.instance)


def park(
    conn: Connection,
    command: Command,
    raw: bytes,
    owner: str,
    attempts: int,
    error: HubError,
    now: datetime,
    doubtful: bool = False,
) -> bool:
    """Set a command of ours that is SENDING aside; later ones of its case wait behind it. False when it is not ours."""
    at = format_time(now)
    values = {**_CLEAN, "code": error.code, "reason": command_events.said(error)}
    if not commands.end(conn, command.id, owner, "PARKED", at, **values):
        return False
    row = {
        "ref": f"command/{command.id}",
        "kind": "command",
        "instance": command.instance,
        "case_id": command.case,
        "subject": command.subject,
        "code": error.code,
        "seen": _kept({**error.seen, **({"doubtful": True} if doubtful else {})}),
        "place": str(error.place) if error.place else None,
        "rule": command.rule,
        "body": raw,
        "parked_at": at,
    }
    parked.park(conn, row)
    outbox.record(conn, [command_events.parked(command, error, attempts, now)], HUB)
    return True


def set_timer(conn: Connection, command: Command, owner: str, now: datetime) -> bool:
    """Carry out `timer.set`, which needs no system. Raises ValueError or TypeError when it names no time."""
    asked = command.arguments
    due_at = format_time(parse_time(asked.get("at", "")))
    if not commands.end(conn, command.id, owner, "DONE", format_time(now), **_CLEAN):
        return False
    timers.set_timer(conn, command.id, command.case, str(asked.get("name", "")), due_at)
    outbox.record(conn, [command_events.result(command, asked, None, 1, now)], HUB)
    return True


def _kept(answer: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = orjson.loads(_as_json(answer))
    return kept


def _as_json(answer: Mapping[str, Any]) -> bytes:
    """An answer as JSON that every database takes; empty for one that cannot be kept, since what was done must be."""
    try:
        raw = orjson.dumps(dict(answer), default=str)
    except TypeError:
        return b"{}"
    return raw if len(raw) <= MOST_KEPT and b"\\u0000" not in raw else b"{}"


AGAIN = 0.5
"""Seconds until a result is written again that the database could not take."""


class TooLateError(Exception):
    """The call's time had run out before it began: another may have it by now."""


@dataclass(frozen=True)
class Ended:
    """How a call ended, to be written. `refused` is True where the instance begins to refuse us, False where that ends."""

    lane: InstanceState
    call: CommandAttempt
    verdict: Decision
    refused: bool | None

    def news(self, now: datetime) -> list[Event]:
        """What is told of the instance."""
        if self.refused is None:
            return []
        reason = command_events.said(self.verdict.error) if self.verdict.error else ""
        return [
            command_events.paused(self.lane.name, reason, now)
            if self.refused
            else command_events.resumed(self.lane.name, now)
        ]


@dataclass
class Calls:
    """Makes calls and writes down how they ended. `ended` hears of each, after its commit."""

    ledger: Ledger
    clock: Clock
    ended: Callable[[], None]
    leaving: threading.Event

    def carry_out(self, lane: InstanceState, call: CommandAttempt, sends: CommandSink) -> None:
        """Do what a command asks and note it, as often as it takes to note it."""
        try:
            self._carry_out(lane, call, sends)
        except TooLateError:
            log.warning("call.too_late", command=call.id, instance=lane.name)
        except Exception:  # the command stays SENDING, and its deadline brings it back
            log.exception("call.not_noted", command=call.id, instance=lane.name)
        finally:
            lane.finish(call.id)
            self.ended()

    def _carry_out(self, lane: InstanceState, call: CommandAttempt, sends: CommandSink) -> None:
        failpoint("executor.before-call")
        began = self.clock.monotonic()
        ended = self._attempt(lane, call, sends)
        failpoint("executor.called")
        state = "done" if isinstance(ended, Effect) else type(ended.error).__name__
        seconds = max(0.0, self.clock.monotonic() - began)
        metrics.CALL_SECONDS.labels(lane.name, call.prepared.command.type, state).observe(seconds)
        refused = lane.learn(call.id, ended, began)
        lane.answered(call.id)
        now = self.clock.now()
        verdict = decide(call, ended, now)
        self._keep(Ended(lane, call, verdict, refused))
        failpoint("executor.done")

    def _attempt(self, lane: InstanceState, call: CommandAttempt, sends: CommandSink) -> Effect | Failure:
        looking = call.doubtful and call.once is Idempotency.MARK
        try:
            found = sends.find(call.prepared.sent) if looking else None
            if found is not None:
                return found
            looking = False
            if self.clock.monotonic() > call.give_up_at:
                raise TooLateError
            return sends.send(call.prepared.sent)
        except UnreadableError as error:
            return Failure(error, looking, unread=lane.unreadable(call.id))
        except HubError as error:
            return Failure(error, looking)
        except TooLateError:
            raise
        except Exception as error:  # its text is not logged: it may hold a secret
            log.error("connector.broke", command=call.id, **seen_of(lane.name, error))
            return Failure(error, looking, lane.crashed(call.id))

    def _write(self, conn: Connection, ended: Sequence[Ended]) -> Sequence[None]:
        """What ends at the same time is written together: a statement costs several times what a row of it does."""
        now = self.clock.now()
        failpoint("executor.before-done")
        outbox.record(conn, [news for each in ended for news in each.news(now)], HUB)
        written = end_all(conn, [(each.call, each.verdict) for each in ended], now)
        for each, ours in zip(ended, written, strict=True):
            if not ours:
                log.warning("call.taken_over", command=each.call.id, instance=each.lane.name)
        return [None] * len(ended)

    def _keep(self, ended: Ended) -> None:
        """Write, for as long as the database is away: what was done must not be forgotten by us."""
        told = False
        while True:
            try:
                return self.ledger.writer.gather(self._write, ended).result()
            except RetryableError as error:
                if not told:
                    log.warning("result.waits", **error.fields())
                told = True
                if self.leaving.wait(AGAIN):
                    raise
