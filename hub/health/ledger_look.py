"""What waits in the ledger: events on their way to the log, held ones, commands on their way to their systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from hub.health.verdict import Queue, StreamFact
from hub.ledger import cursors, parked
from hub.ledger.commands import commands, in_flight
from hub.ledger.commands import instances as waiting_instances
from hub.ledger.commands import ready as ready_commands
from hub.ledger.leases import database_time, leases
from hub.ledger.outbox import outbox
from hub.ledger.positions import halted, of_reader
from schemas.envelope import format_time, parse_time
from schemas.topics import COMMANDS

FRONT = 50
"""So many of the events that wait longest are looked at."""
EXECUTOR, JOB = "executor", "commands"
"""The reader and the job of the executor: its lease is renewed while a connectors program lives, wherever it runs."""


@dataclass(frozen=True)
class LedgerLook:
    """What one look at the ledger found."""

    queues: tuple[Queue, ...] = ()
    streams: tuple[StreamFact, ...] = ()
    instances: Mapping[str, str] = field(default_factory=dict)
    halted: tuple[Mapping[str, object], ...] = ()
    parked: Mapping[str, int] = field(default_factory=dict)
    asked: Mapping[int, int] = field(default_factory=dict)
    """Partition of `hub.commands` → the next record to take in."""
    lived: float | None = None
    """Seconds since, by its lease, a connectors program surely lived; None when none ever has, or it ended in order."""


def look(conn: Connection, now: datetime, intervals: Mapping[str, float]) -> LedgerLook:
    """Look; `intervals` are seconds between polls by connected instance. Reads by indexes, however much history there is."""
    return LedgerLook(
        queues=(*_relay(conn), *_held(conn), *_calls(conn, now)),
        streams=tuple(_streams(conn, intervals)),
        instances={name: instance_state(conn, name) for name in intervals},
        halted=tuple(halted(conn)),
        parked=parked.count(conn),
        asked=of_reader(conn, EXECUTOR, COMMANDS.name),
        lived=_lived(conn),
    )


def _relay(conn: Connection) -> Iterator[Queue]:
    ready = and_(outbox.c.published_at.is_(None), func.coalesce(outbox.c.case_id, "") != "")
    columns = (outbox.c.id, outbox.c.type, outbox.c.recorded_at)
    front = conn.execute(select(*columns).where(ready).order_by(outbox.c.id).limit(FRONT)).all()
    if front:
        count = conn.execute(select(func.count()).select_from(outbox).where(ready)).scalar_one()
        oldest = parse_time(min(row.recorded_at for row in front))
        yield Queue("relay", "", count, oldest, str(front[0].id), Counter(row.type for row in front))


def _held(conn: Connection) -> Iterator[Queue]:
    """News that wait for the record of a call, where no call is under way any more that may have made their object."""
    columns = (outbox.c.id, outbox.c.instance, outbox.c.held_until)
    front = conn.execute(select(*columns).where(outbox.c.case_id.is_(None)).order_by(outbox.c.id).limit(FRONT)).all()
    free = [row for row in front if not in_flight(conn, row.instance, accepted_by=row.held_until)]
    if free:
        yield Queue("held", "", len(free), parse_time(min(row.held_until for row in free)), str(free[0].id))


def _calls(conn: Connection, now: datetime) -> Iterator[Queue]:
    for instance in waiting_instances(conn):
        of_it = commands.c.instance == instance
        count = sum(_numbers(conn, instance).values())
        failing = _failing(conn, instance)
        if failing is not None:
            yield Queue("calls", instance, count, parse_time(failing.updated_at), failing.id, code=failing.code)
            continue
        first = next(iter(ready_commands(conn, instance, format_time(now), 1)), None)
        if first is not None:
            alive = select(func.count()).where(
                of_it, commands.c.state == "SENDING", commands.c.deadline > format_time(now)
            )
            busy = conn.execute(alive).scalar_one() > 0
            yield Queue("calls", instance, count, _since(conn, first), f"{first.id}/{first.attempts}", busy=busy)


def _failing(conn: Connection, instance: str) -> Any:
    """The command of an instance that is tried again and again, if any; `updated_at` is since when it waits."""
    columns = (commands.c.id, commands.c.code, commands.c.created_at.label("updated_at"))
    tried = and_(commands.c.state.in_(("RETRY", "UNKNOWN")), commands.c.code.is_not(None))
    mine = select(*columns).where(commands.c.instance == instance, tried).order_by(commands.c.created_at).limit(1)
    return conn.execute(mine).first()


def _numbers(conn: Connection, instance: str) -> dict[str, int]:
    waiting = commands.c.state.in_(("NEW", "RETRY", "UNKNOWN"))
    found = select(commands.c.state, func.count()).where(commands.c.instance == instance, waiting)
    return {state: number for state, number in conn.execute(found.group_by(commands.c.state))}


def _since(conn: Connection, row: Any) -> datetime:
    """Since when a command could have been begun: the one before it in its case may have ended only now."""
    before = select(func.max(commands.c.updated_at)).where(commands.c.case_id == row.case_id, commands.c.seq < row.seq)
    ended = conn.execute(before).scalar_one_or_none()
    return parse_time(max(filter(None, (row.created_at, row.due_at, ended))))


def _streams(conn: Connection, intervals: Mapping[str, float]) -> Iterable[StreamFact]:
    """Streams of instances that are connected now."""
    for row in cursors.every(conn):
        if row.instance in intervals:
            yield StreamFact(row.instance, row.stream, parse_time(row.moved_at), intervals[row.instance])


def instance_state(conn: Connection, name: str) -> str:
    """By the last fact that the hub has told of an instance: `paused`, `silent`, else `ok`."""
    told = select(outbox.c.type).where(outbox.c.subject == f"connector/hub/{name}").order_by(outbox.c.id.desc())
    type_ = conn.execute(told.limit(1)).scalar_one_or_none() or "resumed"
    last = str(type_).rpartition(".")[2]
    return "ok" if last == "resumed" else last


def _lived(conn: Connection) -> float | None:
    found = select(leases.c.expires).where(leases.c.job == JOB, leases.c.owner != "")
    expires = conn.execute(found).scalar_one_or_none()
    return None if expires is None else max(0.0, database_time(conn) - float(expires))
