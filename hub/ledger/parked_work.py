"""What a person does about a parked command: have it tried again, or give it up. Each is one transaction with its event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from hub.ledger import commands, outbox, parked
from hub.step import cause_of
from schemas.catalog import event_spec
from schemas.event import Command, Event, derived_id, stamp

SOURCE = "/hub/parked"
HUB = "hub"


def retry(conn: Connection, command_id: str, now: datetime, by: str | None = None) -> bool:
    """Let a parked command go on, before all later ones of its case; False when it is not parked.

    One that may have been done is looked up before it is sent again.
    """
    ref = f"command/{command_id}"
    seen = conn.execute(select(parked.parked.c.seen).where(parked.parked.c.ref == ref)).scalar_one_or_none()
    if not commands.reopen(conn, command_id, stamp(now), doubtful=bool((seen or {}).get("doubtful"))):
        return False
    parked.settle(conn, ref, "done", stamp(now))
    command = _command(conn, command_id)
    outbox.record(conn, [_note("hub.parked.retried", command, now, {"reason": None, "by": by})], HUB)
    return True


def discard(conn: Connection, command_id: str, reason: str, now: datetime, by: str | None = None) -> bool:
    """Give a parked command up: its case goes on without it. False when it is not parked."""
    if not commands.discard(conn, command_id, reason, stamp(now)):
        return False
    parked.settle(conn, f"command/{command_id}", "discarded", stamp(now), reason)
    command, row = _command(conn, command_id), commands.get(conn, command_id)
    assert row is not None  # it was discarded above
    ended = {
        "type": command.type,
        "arguments": command.arguments,
        "code": row.code,
        "reason": reason,
        "attempts": row.attempts,
        "why": cause_of(command).model_dump(),
    }
    told = [
        _note("hub.parked.discarded", command, now, {"reason": reason, "by": by}),
        _event("hub.command.failed", command, now, ended),
    ]
    outbox.record(conn, told, HUB)
    return True


def _command(conn: Connection, command_id: str) -> Command:
    row = commands.get(conn, command_id)
    assert row is not None  # the caller has just changed it
    return Command.from_json(row.body)


def _note(type_: str, command: Command, now: datetime, said: dict[str, Any]) -> Event:
    return _event(type_, command, now, {"parked": command.id, **said})


def _event(type_: str, command: Command, now: datetime, data: dict[str, Any]) -> Event:
    at = stamp(now)
    return Event(
        id=derived_id(type_, command.id, at),  # one command may park, and be let go, many times
        source=SOURCE,
        type=type_,
        subject=f"command/{command.instance}/{command.id}",
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=command.case,
        correlationid=command.case,
        causationid=command.id,
        data=data,
    )
