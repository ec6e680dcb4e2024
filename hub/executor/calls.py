"""Makes calls and writes their results: from SENDING to a command's next state in the ledger.

`Calls.carry_out` runs in a worker thread of the instance and never raises. The functions write a command's state, its event and
its links in their caller's transaction.
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
from hub.executor.retry_policy import CommandAttempt, Decision, Failure, crash_context, decide
from hub.intake import correlation
from hub.kit.connector import CommandSink, Effect, Fact, Idempotency
from hub.kit.facts import IntakeContext, event_of
from hub.ledger import commands, links, outbox, parked, timers
from hub.ledger.commands import End
from hub.ledger.ledger import Ledger
from hub.runtime import metrics
from hub.runtime.clock import Clock
from hub.runtime.failpoints import failpoint
from schemas.envelope import HUB_INSTANCE, Command, Event, format_time, parse_time

log = structlog.get_logger(__name__)
MAX_RESPONSE_BYTES = 32 * 1024
"""Bytes of a system's response that the ledger stores; a longer one is replaced by `{}`."""
_CLEAN: dict[str, Any] = {"due_at": None, "deadline": None, "code": None, "reason": None}


def end_all(conn: Connection, ended: Sequence[tuple[CommandAttempt, Decision]], now: datetime) -> list[bool]:
    """Write decisions. False for a command that its call no longer owns: nothing of that one is written."""
    settled = [(call, decision) for call, decision in ended if decision.state != "PARKED"]
    ours = commands.end_all(conn, [_end(call, decision, now) for call, decision in settled], format_time(now))
    _done(conn, [(call, decision.effect) for call, decision in settled if decision.effect and call.id in ours], now)
    return [_park(conn, *each, now) if each[1].state == "PARKED" else each[0].id in ours for each in ended]


def _end(call: CommandAttempt, decision: Decision, now: datetime) -> End:
    if decision.effect is not None:
        response = _as_json(decision.effect.response).decode()
        return End(call.id, call.owner, "DONE", call.attempts, effect_id=_effect_id(decision.effect), response=response)
    assert decision.error is not None  # only DONE has no error
    attempts = call.attempts if decision.counts else call.attempts - 1
    due, reason = format_time(decision.due or now), command_events.error_message(decision.error)
    return End(call.id, call.owner, decision.state, attempts, due, decision.error.code, reason)


def _effect_id(effect: Effect) -> str | None:
    return command_events.clean_text(effect.id or "") or None


def _park(conn: Connection, call: CommandAttempt, decision: Decision, now: datetime) -> bool:
    assert decision.error is not None  # only DONE has no error
    command = call.resolved.command
    return park(conn, command, call.raw, call.owner, call.attempts, decision.error, now, decision.doubtful)


def _done(conn: Connection, done: Sequence[tuple[CommandAttempt, Effect]], now: datetime) -> None:
    """Link the created objects and record the result events; then record the facts that the responses contain."""
    made, events = [], []
    for call, effect in done:
        command, effect_id = call.resolved.command, _effect_id(effect)
        ref = command_events.created_ref(command, effect_id)
        if ref is not None:
            made.append((ref, command.case, command.id))
        events.append(command_events.result(command, call.resolved.arguments, effect_id, call.attempts, now))
    links.link_effects(conn, made)
    outbox.record(conn, events, HUB_INSTANCE)
    for call, effect in done:
        for fact in effect.facts:
            _record_fact(conn, call.resolved.command, fact, now)


class _AsNamed:
    """The directory for an effect's facts: they name people as the command did, so no account is looked up."""

    def person_of(self, instance: str, account: str) -> str | None:
        return None


def _record_fact(conn: Connection, command: Command, fact: Fact, now: datetime) -> None:
    """Record a fact from an effect. The effect has happened either way, so a fact that gives no valid event is only logged."""
    try:
        event = event_of(fact, IntakeContext(command.instance, _AsNamed(), now, command.id))
    except RejectedError as error:
        log.error("effect.not_told", command=command.id, **error.fields())
        return
    outbox.record(conn, [correlation.with_case(event, correlation.decide_case(conn, event))], command.instance)


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
    """Park a command that `owner` has SENDING; later ones of its case wait behind it. False when `owner` no longer has it."""
    at = format_time(now)
    values = {**_CLEAN, "code": error.code, "reason": command_events.error_message(error)}
    if not commands.end(conn, command.id, owner, "PARKED", at, **values):
        return False
    row = {
        "ref": f"command/{command.id}",
        "kind": "command",
        "instance": command.instance,
        "case_id": command.case,
        "subject": command.subject,
        "code": error.code,
        "seen": _as_stored({**error.seen, **({"doubtful": True} if doubtful else {})}),
        "place": str(error.place) if error.place else None,
        "rule": command.rule,
        "body": raw,
        "parked_at": at,
    }
    parked.park(conn, row)
    outbox.record(conn, [command_events.parked(command, error, attempts, now)], HUB_INSTANCE)
    return True


def set_timer(conn: Connection, command: Command, owner: str, now: datetime) -> bool:
    """Carry out `timer.set`, which needs no system. Raises ValueError or TypeError when it names no time."""
    arguments = command.arguments
    due_at = format_time(parse_time(arguments.get("at", "")))
    if not commands.end(conn, command.id, owner, "DONE", format_time(now), **_CLEAN):
        return False
    timers.set_timer(conn, command.id, command.case, str(arguments.get("name", "")), due_at)
    outbox.record(conn, [command_events.result(command, arguments, None, 1, now)], HUB_INSTANCE)
    return True


def _as_stored(answer: Mapping[str, Any]) -> dict[str, Any]:
    stored: dict[str, Any] = orjson.loads(_as_json(answer))
    return stored


def _as_json(answer: Mapping[str, Any]) -> bytes:
    """A response as JSON that every database accepts; `{}` for one that cannot be stored, since the result must be."""
    try:
        raw = orjson.dumps(dict(answer), default=str)
    except TypeError:
        return b"{}"
    return raw if len(raw) <= MAX_RESPONSE_BYTES and b"\\u0000" not in raw else b"{}"


RETRY_DELAY_S = 0.5
"""Seconds until a result is written again after the database refused it."""


class TooLateError(Exception):
    """The call's deadline passed before its request began: another executor may own the command by now."""


@dataclass(frozen=True)
class FinishedCall:
    """A call's result, to be written. `refused`: True when the instance begins to refuse our credentials, False when that ends."""

    instance: InstanceState
    call: CommandAttempt
    decision: Decision
    refused: bool | None

    def instance_events(self, now: datetime) -> list[Event]:
        """The event that the instance is paused or resumed, if this call changed that."""
        if self.refused is None:
            return []
        reason = command_events.error_message(self.decision.error) if self.decision.error else ""
        return [
            command_events.paused(self.instance.name, reason, now)
            if self.refused
            else command_events.resumed(self.instance.name, now)
        ]


@dataclass
class Calls:
    """Makes calls and writes their results. `ended` is called for each, after its commit."""

    ledger: Ledger
    clock: Clock
    ended: Callable[[], None]
    leaving: threading.Event

    def carry_out(self, instance: InstanceState, call: CommandAttempt, sink: CommandSink) -> None:
        """Carry out a command and write the result, retrying the write while the database is away."""
        try:
            self._run(instance, call, sink)
        except TooLateError:
            log.warning("call.too_late", command=call.id, instance=instance.name)
        except Exception:  # the command stays SENDING until its deadline, then housekeeping recovers it
            log.exception("call.not_noted", command=call.id, instance=instance.name)
        finally:
            instance.finish(call.id)
            self.ended()

    def _run(self, instance: InstanceState, call: CommandAttempt, sink: CommandSink) -> None:
        failpoint("executor.before-call")
        began = self.clock.monotonic()
        outcome = self._attempt(instance, call, sink)
        failpoint("executor.called")
        state = "done" if isinstance(outcome, Effect) else type(outcome.error).__name__
        seconds = max(0.0, self.clock.monotonic() - began)
        metrics.CALL_SECONDS.labels(instance.name, call.resolved.command.type, state).observe(seconds)
        refused = instance.record_outcome(call.id, outcome, began)
        instance.answered(call.id)
        now = self.clock.now()
        decision = decide(call, outcome, now)
        self._store(FinishedCall(instance, call, decision, refused))
        failpoint("executor.done")

    def _attempt(self, instance: InstanceState, call: CommandAttempt, sink: CommandSink) -> Effect | Failure:
        looking = call.doubtful and call.idempotency is Idempotency.LOOKUP
        try:
            earlier = sink.find(call.resolved.sent) if looking else None
            if earlier is not None:
                return earlier
            looking = False
            if self.clock.monotonic() > call.give_up_at:
                raise TooLateError
            return sink.send(call.resolved.sent)
        except UnreadableError as error:
            return Failure(error, looking, unread=instance.unreadable(call.id))
        except HubError as error:
            return Failure(error, looking)
        except TooLateError:
            raise
        except Exception as error:  # its text is not logged: it may contain a secret
            log.error("connector.broke", command=call.id, **crash_context(instance.name, error))
            return Failure(error, looking, instance.crashed(call.id))

    def _write(self, conn: Connection, ended: Sequence[FinishedCall]) -> Sequence[None]:
        """Write results that are ready at the same time in one batch: a statement costs several times what one of its rows does."""
        now = self.clock.now()
        failpoint("executor.before-done")
        outbox.record(conn, [event for each in ended for event in each.instance_events(now)], HUB_INSTANCE)
        written = end_all(conn, [(each.call, each.decision) for each in ended], now)
        for each, ours in zip(ended, written, strict=True):
            if not ours:
                log.warning("call.taken_over", command=each.call.id, instance=each.instance.name)
        return [None] * len(ended)

    def _store(self, ended: FinishedCall) -> None:
        """Write a result, retrying while the database is away: a completed call must not be lost."""
        warned = False
        while True:
            try:
                return self.ledger.writer.gather(self._write, ended).result()
            except RetryableError as error:
                if not warned:
                    log.warning("result.waits", **error.fields())
                warned = True
                if self.leaving.wait(RETRY_DELAY_S):
                    raise
