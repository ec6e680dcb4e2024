"""Reads waiting work from the ledger: events not yet relayed, deferred events, and commands not yet executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from hub.health.status import Queue, StreamFact
from hub.ledger import cursors, parked
from hub.ledger.commands import commands, in_flight
from hub.ledger.commands import instances as waiting_instances
from hub.ledger.commands import ready as ready_commands
from hub.ledger.leases import database_time, leases
from hub.ledger.outbox import outbox
from hub.ledger.positions import halted, of_reader
from schemas.envelope import format_time, parse_time
from schemas.topics import COMMANDS

MAX_FRONT_ROWS = 50
"""The number of longest-waiting events that are read."""
EXECUTOR, JOB = "executor", "commands"
"""The executor's reader name and its lease's job: a connectors program renews the lease while it runs, on any machine."""


@dataclass(frozen=True)
class LedgerLook:
    """The facts that one check read from the ledger."""

    queues: tuple[Queue, ...] = ()
    streams: tuple[StreamFact, ...] = ()
    instances: Mapping[str, str] = field(default_factory=dict)
    halted: tuple[Mapping[str, object], ...] = ()
    parked: Mapping[str, int] = field(default_factory=dict)
    intake_offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition of `hub.commands` → the next record that the executor consumes."""
    lease_expired_s: float | None = None
    """Seconds since a connectors program's lease expired (0: it is valid); None when there is none, or its owner released it."""


def look(conn: Connection, now: datetime, intervals: Mapping[str, float]) -> LedgerLook:
    """Read the facts. `intervals`: connected instance → seconds between polls. Every query uses an index, whatever the history."""
    return LedgerLook(
        queues=(*_relay(conn), *_held(conn), *_calls(conn, now)),
        streams=tuple(_streams(conn, intervals)),
        instances={name: instance_state(conn, name) for name in intervals},
        halted=tuple(halted(conn)),
        parked=parked.count(conn),
        intake_offsets=of_reader(conn, EXECUTOR, COMMANDS.name),
        lease_expired_s=_lease_expired_s(conn),
    )


def _relay(conn: Connection) -> Iterator[Queue]:
    ready = and_(outbox.c.published_at.is_(None), func.coalesce(outbox.c.case_id, "") != "")
    columns = (outbox.c.id, outbox.c.type, outbox.c.recorded_at)
    front = conn.execute(select(*columns).where(ready).order_by(outbox.c.id).limit(MAX_FRONT_ROWS)).all()
    if front:
        count = conn.execute(select(func.count()).select_from(outbox).where(ready)).scalar_one()
        oldest = parse_time(min(row.recorded_at for row in front))
        yield Queue("relay", "", count, oldest, str(front[0].id), Counter(row.type for row in front))


def _held(conn: Connection) -> Iterator[Queue]:
    """Deferred events whose hold has no reason any more: no call is in flight that may have created their object."""
    columns = (outbox.c.id, outbox.c.instance, outbox.c.held_until)
    front = conn.execute(
        select(*columns).where(outbox.c.case_id.is_(None)).order_by(outbox.c.id).limit(MAX_FRONT_ROWS)
    ).all()
    releasable = [row for row in front if not in_flight(conn, row.instance, accepted_by=row.held_until)]
    if releasable:
        yield Queue(
            "held", "", len(releasable), parse_time(min(row.held_until for row in releasable)), str(releasable[0].id)
        )


def _calls(conn: Connection, now: datetime) -> Iterator[Queue]:
    for instance in waiting_instances(conn):
        of_instance = commands.c.instance == instance
        count = sum(_numbers(conn, instance).values())
        failing = _failing(conn, instance)
        if failing is not None:
            yield Queue("calls", instance, count, parse_time(failing.updated_at), failing.id, code=failing.code)
            continue
        first = next(iter(ready_commands(conn, instance, format_time(now), 1)), None)
        if first is not None:
            in_progress = select(func.count()).where(
                of_instance, commands.c.state == "SENDING", commands.c.deadline > format_time(now)
            )
            busy = conn.execute(in_progress).scalar_one() > 0
            yield Queue("calls", instance, count, _since(conn, first), f"{first.id}/{first.attempts}", busy=busy)


def _failing(conn: Connection, instance: str) -> Any:
    """The oldest failing command of an instance, if any; `updated_at` is the time since which it waits."""
    columns = (commands.c.id, commands.c.code, commands.c.created_at.label("updated_at"))
    failed = and_(commands.c.state.in_(("RETRY", "UNKNOWN")), commands.c.code.is_not(None))
    oldest = select(*columns).where(commands.c.instance == instance, failed).order_by(commands.c.created_at).limit(1)
    return conn.execute(oldest).first()


def _numbers(conn: Connection, instance: str) -> dict[str, int]:
    waiting = commands.c.state.in_(("NEW", "RETRY", "UNKNOWN"))
    found = select(commands.c.state, func.count()).where(commands.c.instance == instance, waiting)
    return {state: number for state, number in conn.execute(found.group_by(commands.c.state))}


def _since(conn: Connection, row: Any) -> datetime:
    """The time since which a command could have been sent: its predecessor in the case may have ended only recently."""
    predecessor = select(func.max(commands.c.updated_at)).where(
        commands.c.case_id == row.case_id, commands.c.seq < row.seq
    )
    ended = conn.execute(predecessor).scalar_one_or_none()
    return parse_time(max(filter(None, (row.created_at, row.due_at, ended))))


def _streams(conn: Connection, intervals: Mapping[str, float]) -> Iterable[StreamFact]:
    """Streams of the connected instances."""
    for row in cursors.all_cursors(conn):
        if row.instance in intervals:
            yield StreamFact(row.instance, row.stream, parse_time(row.moved_at), intervals[row.instance])


def instance_state(conn: Connection, name: str) -> str:
    """The state by the hub's last event about an instance: `paused`, `silent`, else `ok`."""
    query = select(outbox.c.type).where(outbox.c.subject == f"connector/hub/{name}").order_by(outbox.c.id.desc())
    type_ = conn.execute(query.limit(1)).scalar_one_or_none() or "resumed"
    last = str(type_).rpartition(".")[2]
    return "ok" if last == "resumed" else last


def _lease_expired_s(conn: Connection) -> float | None:
    found = select(leases.c.expires).where(leases.c.job == JOB, leases.c.owner != "")
    expires = conn.execute(found).scalar_one_or_none()
    return None if expires is None else max(0.0, database_time(conn) - float(expires))
