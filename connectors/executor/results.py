"""Writes what became of a command: its state, its event, its links, all in the transaction of the caller."""

from __future__ import annotations

from collections.abc import Mapping
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
from schemas.event import Command, moment, stamp

log = structlog.get_logger(__name__)
HUB = "hub"
"""The instance of events that are the hub's own."""
MOST_KEPT = 32 * 1024
"""Bytes of a system's answer that are kept; a longer one is not needed to say what was done."""
_CLEAN: dict[str, Any] = {"due_at": None, "deadline": None, "code": None, "reason": None}


def end(conn: Connection, call: Call, verdict: Verdict, now: datetime) -> bool:
    """Write a verdict down. False when the command is no longer this call's: then nothing is written."""
    if verdict.effect is not None:
        return _done(conn, call, verdict.effect, now)
    assert verdict.error is not None  # only DONE has no error
    command = call.prepared.command
    if verdict.state == "PARKED":
        return park(conn, command, call.raw, call.owner, call.attempts, verdict.error, now, verdict.doubtful)
    values = {
        "due_at": stamp(verdict.due or now),
        "deadline": None,
        "attempts": call.attempts if verdict.counts else call.attempts - 1,
        "code": verdict.error.code,
        "reason": events.said(verdict.error),
    }
    return commands.end(conn, command.id, call.owner, verdict.state, stamp(now), **values)


def _done(conn: Connection, call: Call, effect: Effect, now: datetime) -> bool:
    command, at = call.prepared.command, stamp(now)
    effect_id = events.plain(effect.id or "") or None
    values = {"effect_id": effect_id, "response": _kept(effect.response), **_CLEAN}
    if not commands.end(conn, command.id, call.owner, "DONE", at, **values):
        return False
    made = events.made_by(command, effect_id)
    if made is not None:
        links.link(conn, made, command.case, command.id)
    outbox.record(conn, [events.result(command, call.prepared.asked, effect_id, call.attempts, now)], HUB)
    for fact in effect.facts:
        _tell(conn, command, fact, now)
    return True


class _AsNamed:
    """People in an effect's facts are named as the command named them."""

    def person_of(self, instance: str, account: str) -> str | None:
        return None


def _tell(conn: Connection, command: Command, fact: Fact, now: datetime) -> None:
    """Record what an effect says of an object. The effect is there whatever it says, so what is no event is only logged."""
    try:
        event = event_of(fact, Door(command.instance, _AsNamed(), now, command.id))
    except RejectedError as error:
        log.error("effect.not_told", command=command.id, code=error.code, reason=error.message("en"))
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
    """An answer as JSON that every database takes; empty for one that cannot be kept, since what was done must be."""
    try:
        raw = orjson.dumps(dict(answer), default=str)
    except TypeError:
        return {}
    kept: dict[str, Any] = orjson.loads(raw) if len(raw) <= MOST_KEPT and b"\\u0000" not in raw else {}
    return kept
