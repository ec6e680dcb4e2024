"""Writes what became of a command: its state, its event, its links, all in the transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import structlog
from sqlalchemy import Connection

from connectors import casing
from connectors.executor import events
from connectors.executor.verdicts import Call, Verdict
from connectors.facts import Door, event_of
from hub.connector import Effect, Fact
from hub.errors import HubError, RejectedError
from hub.ledger import commands, links, outbox, parked, timers
from hub.ledger.commands import End
from schemas.event import HUB, Command, moment, stamp

log = structlog.get_logger(__name__)
MOST_KEPT = 32 * 1024
"""Bytes of a system's answer that are kept; a longer one is not needed to say what was done."""
_CLEAN: dict[str, Any] = {"due_at": None, "deadline": None, "code": None, "reason": None}


def end_all(conn: Connection, ended: Sequence[tuple[Call, Verdict]], now: datetime) -> list[bool]:
    """Write verdicts down. False for a command that is no longer its call's: of that nothing is written."""
    plain = [(call, verdict) for call, verdict in ended if verdict.state != "PARKED"]
    ours = commands.end_all(conn, [_end(call, verdict, now) for call, verdict in plain], stamp(now))
    _done(conn, [(call, verdict.effect) for call, verdict in plain if verdict.effect and call.id in ours], now)
    return [_park(conn, *each, now) if each[1].state == "PARKED" else each[0].id in ours for each in ended]


def _end(call: Call, verdict: Verdict, now: datetime) -> End:
    if verdict.effect is not None:
        response = _as_json(verdict.effect.response).decode()
        return End(call.id, call.owner, "DONE", call.attempts, effect_id=_effect_id(verdict.effect), response=response)
    assert verdict.error is not None  # only DONE has no error
    attempts = call.attempts if verdict.counts else call.attempts - 1
    due, said = stamp(verdict.due or now), events.said(verdict.error)
    return End(call.id, call.owner, verdict.state, attempts, due, verdict.error.code, said)


def _effect_id(effect: Effect) -> str | None:
    return events.plain(effect.id or "") or None


def _park(conn: Connection, call: Call, verdict: Verdict, now: datetime) -> bool:
    assert verdict.error is not None  # only DONE has no error
    command = call.prepared.command
    return park(conn, command, call.raw, call.owner, call.attempts, verdict.error, now, verdict.doubtful)


def _done(conn: Connection, done: Sequence[tuple[Call, Effect]], now: datetime) -> None:
    """Link what was made, and tell of it; then what its system says of objects."""
    made, told = [], []
    for call, effect in done:
        command, effect_id = call.prepared.command, _effect_id(effect)
        ref = events.made_by(command, effect_id)
        if ref is not None:
            made.append((ref, command.case, command.id))
        told.append(events.result(command, call.prepared.asked, effect_id, call.attempts, now))
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
    outbox.record(conn, [casing.under(event, casing.settle(conn, event))], command.instance)


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
    at = stamp(now)
    values = {**_CLEAN, "code": error.code, "reason": events.said(error)}
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
    outbox.record(conn, [events.parked(command, error, attempts, now)], HUB)
    return True


def set_timer(conn: Connection, command: Command, owner: str, now: datetime) -> bool:
    """Carry out `timer.set`, which needs no system. Raises ValueError or TypeError when it names no time."""
    asked = command.arguments
    due_at = stamp(moment(asked.get("at", "")))
    if not commands.end(conn, command.id, owner, "DONE", stamp(now), **_CLEAN):
        return False
    timers.set_timer(conn, command.id, command.case, str(asked.get("name", "")), due_at)
    outbox.record(conn, [events.result(command, asked, None, 1, now)], HUB)
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
