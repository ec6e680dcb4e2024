"""Operator actions on a parked (dead-lettered) command: retry, correct or discard it, each in one transaction with its event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from hub.ledger import commands, outbox, parked
from hub.ledger.database import AnyRow
from hub.ledger.parked_events import DISCARDED, EDITED, RETRIED, SOURCE, OperatorRequest
from schemas.domains.work import cause_of
from schemas.envelope import HUB_INSTANCE, Command, Event, derived_id, format_time
from schemas.registry import event_spec


def retry(conn: Connection, command_id: str, now: datetime, by: str | None = None, reason: str | None = None) -> bool:
    """Reopen a parked command, ahead of all later ones of its case; False when it is not parked.

    A command that may have been executed is looked up before it is sent again. It is sent with its correction, under its own id.
    """
    request = OperatorRequest(now, by, reason)
    entry = parked.find(conn, f"command/{command_id}")
    doubtful = entry is not None and bool(entry.seen.get("doubtful"))
    if not commands.reopen(conn, command_id, format_time(now), doubtful=doubtful):
        return False
    if entry is not None and entry.correction is not None:
        mine = commands.commands.c.id == command_id
        conn.execute(update(commands.commands).where(mine).values(body=entry.correction))
    parked.settle(conn, f"command/{command_id}", "done", format_time(now))
    command = _command(conn, command_id)
    data = {"parked": command.id, **request.as_data()}
    outbox.record(conn, [_event(RETRIED, command, _retry_key(entry), data, request)], HUB_INSTANCE)
    return True


def discard(conn: Connection, command_id: str, reason: str, now: datetime, by: str | None = None) -> bool:
    """Discard a parked command, so that its case goes on without it. False when it is not parked."""
    request = OperatorRequest(now, by, reason)
    entry = parked.find(conn, f"command/{command_id}")
    if not commands.discard(conn, command_id, reason, format_time(now)):
        return False
    parked.settle(conn, f"command/{command_id}", "discarded", format_time(now), reason)
    command, row = _command(conn, command_id), commands.get(conn, command_id)
    assert row is not None  # it was discarded above
    failure = {
        "type": command.type,
        "arguments": command.arguments,
        "code": row.code,
        "reason": reason,
        "attempts": row.attempts,
        "why": cause_of(command).model_dump(),
    }
    data, retry_key = {"parked": command.id, **request.as_data()}, _retry_key(entry)
    events = [
        _event(DISCARDED, command, retry_key, data, request),
        _event("hub.command.failed", command, retry_key, failure, request),
    ]
    outbox.record(conn, events, HUB_INSTANCE)
    return True


def edit(conn: Connection, entry: AnyRow, corrected: Command, request: OperatorRequest) -> str | None:
    """Send `corrected` at the next try; returns the edit event's id, None when nothing changes."""
    if not parked.correct(conn, entry.id, corrected.to_json()):
        return None
    current = parked.get(conn, entry.id)
    assert current is not None  # it was corrected above
    data = {"parked": corrected.id, **request.as_data(), "arguments": corrected.arguments}
    event = _event(EDITED, corrected, (str(current.edits),), data, request)
    outbox.record(conn, [event], HUB_INSTANCE)
    return event.id


def _command(conn: Connection, command_id: str) -> Command:
    row = commands.get(conn, command_id)
    assert row is not None  # the caller has just changed it
    return Command.from_json(row.body)


def _retry_key(entry: AnyRow | None) -> tuple[str, ...]:
    """Distinguishes the action from earlier ones: a command may be parked and reopened many times."""
    return (str(entry.tries), str(entry.edits)) if entry is not None else ("0", "0")


def _event(
    type_: str, command: Command, retry_key: tuple[str, ...], data: dict[str, Any], request: OperatorRequest
) -> Event:
    at = format_time(request.now)
    return Event(
        id=derived_id(type_, command.id, *retry_key),
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
