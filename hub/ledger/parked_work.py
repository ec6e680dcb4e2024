"""What a person does about a parked command: try it again, correct it, or give it up. Each is one transaction with its event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from hub.engine.step import cause_of
from hub.ledger import commands, outbox, parked
from hub.ledger.database import AnyRow
from hub.ledger.parked_events import DISCARDED, EDITED, RETRIED, SOURCE, Asking
from schemas.envelope import HUB, Command, Event, derived_id, format_time
from schemas.registry import event_spec


def retry(conn: Connection, command_id: str, now: datetime, by: str | None = None, reason: str | None = None) -> bool:
    """Let a parked command go on, before all later ones of its case; False when it is not parked.

    One that may have been done is looked up before it is sent again. It is sent as it was corrected, under its own id.
    """
    asking = Asking(now, by, reason)
    entry = parked.find(conn, f"command/{command_id}")
    doubtful = entry is not None and bool(entry.seen.get("doubtful"))
    if not commands.reopen(conn, command_id, format_time(now), doubtful=doubtful):
        return False
    if entry is not None and entry.correction is not None:
        mine = commands.commands.c.id == command_id
        conn.execute(update(commands.commands).where(mine).values(body=entry.correction))
    parked.settle(conn, f"command/{command_id}", "done", format_time(now))
    command = _command(conn, command_id)
    note = {"parked": command.id, **asking.told()}
    outbox.record(conn, [_event(RETRIED, command, _turn(entry), note, asking)], HUB)
    return True


def discard(conn: Connection, command_id: str, reason: str, now: datetime, by: str | None = None) -> bool:
    """Give a parked command up: its case goes on without it. False when it is not parked."""
    asking = Asking(now, by, reason)
    entry = parked.find(conn, f"command/{command_id}")
    if not commands.discard(conn, command_id, reason, format_time(now)):
        return False
    parked.settle(conn, f"command/{command_id}", "discarded", format_time(now), reason)
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
    note, turn = {"parked": command.id, **asking.told()}, _turn(entry)
    told = [
        _event(DISCARDED, command, turn, note, asking),
        _event("hub.command.failed", command, turn, ended, asking),
    ]
    outbox.record(conn, told, HUB)
    return True


def edit(conn: Connection, entry: AnyRow, corrected: Command, asking: Asking) -> str | None:
    """Have the next try send this; the id of the event that tells of it, None when that is so already."""
    if not parked.correct(conn, entry.id, corrected.to_json()):
        return None
    now = parked.get(conn, entry.id)
    assert now is not None  # it was corrected above
    note = {"parked": corrected.id, **asking.told(), "arguments": corrected.arguments}
    event = _event(EDITED, corrected, (str(now.edits),), note, asking)
    outbox.record(conn, [event], HUB)
    return event.id


def _command(conn: Connection, command_id: str) -> Command:
    row = commands.get(conn, command_id)
    assert row is not None  # the caller has just changed it
    return Command.from_json(row.body)


def _turn(entry: AnyRow | None) -> tuple[str, ...]:
    """What tells one time from the next: a command may park, and be let go, many times."""
    return (str(entry.tries), str(entry.edits)) if entry is not None else ("0", "0")


def _event(type_: str, command: Command, turn: tuple[str, ...], data: dict[str, Any], asking: Asking) -> Event:
    at = format_time(asking.now)
    return Event(
        id=derived_id(type_, command.id, *turn),
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
