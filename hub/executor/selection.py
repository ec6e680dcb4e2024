"""What is to be done about a command whose turn it is, found out before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hub.errors import HubError, RejectedError
from hub.executor.argument_resolution import Prepared, from_ledger, prepare
from hub.executor.instances import Instances, InstanceState
from hub.executor.retry_policy import seen_of
from hub.kit.connector import CommandSink, Idempotency
from hub.ledger import commands
from hub.ledger.database import AnyRow
from schemas.envelope import Command, format_time

TIMER = "timer.set"
"""The command that the hub carries out itself, whatever instance it names."""


@dataclass(frozen=True)
class Ready:
    """A command whose turn it is. `sends` is who carries it out; without, `work` is why it parks, or it is a timer."""

    lane: InstanceState
    row: AnyRow
    command: Command
    work: Prepared | HubError | None
    sends: CommandSink | None = None


def choose(conn: Connection, lanes: Instances, lane: InstanceState, now: datetime, room: int) -> Iterator[Ready]:
    """Up to `room` commands of an instance whose turn it is, oldest first; one that we are still calling is left alone.

    A trial of an instance that seems away takes the one that has failed least: one that fails always must not be every trial.
    """
    look = commands.ready_least_tried if lane.gate.broken else commands.ready
    rows = look(conn, lane.name, format_time(now), room + len(lane.running))
    for row in [row for row in rows if row.id not in lane.running][:room]:
        command = Command.from_json(row.body)
        if command.type == TIMER:
            yield Ready(lane, row, command, None)
            continue
        sends = lane.sends
        work = _doubtful(lane, row, sends) or _prepared(conn, lanes, lane, command, sends)
        yield Ready(lane, row, command, work, sends)


def _doubtful(lane: InstanceState, row: AnyRow, sends: CommandSink | None) -> RejectedError | None:
    """Why a person must decide: its caller died in the middle, and the system knows no key and cannot be asked."""
    if row.state != "UNKNOWN" or sends is None or sends.once(row.type) is not Idempotency.NEITHER:
        return None
    return RejectedError("HUB-E4065", instance=lane.name, reason=row.reason or "SENDING", cause=row.code)


def _prepared(
    conn: Connection, lanes: Instances, lane: InstanceState, command: Command, sends: CommandSink | None
) -> Prepared | HubError:
    if sends is None:
        return RejectedError("HUB-E4061", instance=lane.name, type=command.type)
    if command.type not in sends.takes:
        known = ", ".join(sorted(sends.takes))
        return RejectedError("HUB-E4062", instance=lane.name, type=command.type, known=known)
    try:
        return prepare(command, from_ledger(conn), lanes.target(lane))
    except HubError as error:
        return error
    except SQLAlchemyError:  # the ledger's trouble, not the command's
        raise
    except Exception as error:  # a bug of ours: this command parks, the others flow
        return RejectedError("HUB-E4066", **seen_of(lane.name, error))
