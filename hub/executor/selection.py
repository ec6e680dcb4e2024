"""Selects the commands that are due and decides, before anything is written, what is to be done about each: call, timer or park."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from hub.errors import HubError, RejectedError
from hub.executor.argument_resolution import ResolvedCommand, ledger_resolver, resolve_arguments
from hub.executor.instances import Instances, InstanceState
from hub.executor.retry_policy import crash_context
from hub.kit.connector import CommandSink, Idempotency
from hub.ledger import commands
from hub.ledger.database import AnyRow
from schemas.envelope import Command, format_time

TIMER_TYPE = "timer.set"
"""The command that the hub carries out itself, whichever instance it names."""


@dataclass(frozen=True)
class ReadyCommand:
    """A command that is due. `sink` carries it out; without one, `resolution` is the reason to park it, or it is a timer."""

    instance: InstanceState
    row: AnyRow
    command: Command
    resolution: ResolvedCommand | HubError | None
    sink: CommandSink | None = None


def select_ready(
    conn: Connection, instances: Instances, instance: InstanceState, now: datetime, limit: int
) -> Iterator[ReadyCommand]:
    """Yield up to `limit` due commands of an instance, oldest first, without those whose call is under way.

    While the circuit breaker is open, the trial takes the command with the fewest attempts, so that one that always fails is not
    every trial.
    """
    query = commands.ready_least_tried if instance.breaker.broken else commands.ready
    rows = query(conn, instance.name, format_time(now), limit + len(instance.running))
    for row in [row for row in rows if row.id not in instance.running][:limit]:
        command = Command.from_json(row.body)
        if command.type == TIMER_TYPE:
            yield ReadyCommand(instance, row, command, None)
            continue
        sink = instance.sends
        resolution = _undecidable(instance, row, sink) or _resolved(conn, instances, instance, command, sink)
        yield ReadyCommand(instance, row, command, resolution, sink)


def _undecidable(instance: InstanceState, row: AnyRow, sink: CommandSink | None) -> RejectedError | None:
    """Why a person must decide: its executor died during the call, and the system has neither an idempotency key nor a lookup."""
    if row.state != "UNKNOWN" or sink is None or sink.idempotency(row.type) is not Idempotency.NONE:
        return None
    return RejectedError("HUB-E4065", instance=instance.name, reason=row.reason or "SENDING", cause=row.code)


def _resolved(
    conn: Connection, instances: Instances, instance: InstanceState, command: Command, sink: CommandSink | None
) -> ResolvedCommand | HubError:
    if sink is None:
        return RejectedError("HUB-E4061", instance=instance.name, type=command.type)
    if command.type not in sink.command_types:
        known = ", ".join(sorted(sink.command_types))
        return RejectedError("HUB-E4062", instance=instance.name, type=command.type, known=known)
    try:
        return resolve_arguments(command, ledger_resolver(conn), instances.target(instance))
    except HubError as error:
        return error
    except SQLAlchemyError:  # the ledger failed, not the command
        raise
    except Exception as error:  # a bug in the hub: this command parks, the others continue
        return RejectedError("HUB-E4066", **crash_context(instance.name, error))
