"""Every command and its outcome. The state machine:

    NEW → SENDING → DONE | RETRY (at due_at) | UNKNOWN (look up, at due_at) | PARKED | DISCARDED

SENDING is committed before the call, so after a crash the row shows that the command may have been executed. Order holds per case:
a command is taken only when every earlier one of its case is DONE or DISCARDED.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    Update,
    and_,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from hub.ledger.database import AnyRow, Json, Serial, bound, insert_all_new, metadata, with_rows
from schemas.envelope import Command

commands = Table(
    "commands",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("case_id", Text, nullable=False),
    Column("instance", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("due_at", Text),
    Column("deadline", Text),
    Column("owner", Text),
    Column("effect_id", Text),
    Column("response", Json),
    Column("code", Text),
    Column("reason", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    sqlite_autoincrement=True,
)
ENDED = ("DONE", "DISCARDED")
WAITING = ("NEW", "RETRY", "UNKNOWN")
DOUBTFUL = ("SENDING", "UNKNOWN")


def _literals(states: Sequence[str]) -> list[ColumnElement[str]]:
    """Literals, not bound parameters: a database uses a partial index only for a condition that is spelled out in the statement."""
    return [literal_column(f"'{state}'", Text) for state in states]


def _index(name: str, *columns: Column[Any], where: ColumnElement[bool]) -> None:
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


_unfinished = commands.c.state.not_in(_literals(ENDED))
_waiting = commands.c.state.in_(_literals(WAITING))
_doubtful = commands.c.state.in_(_literals(DOUBTFUL))
_index("commands_unfinished", commands.c.case_id, commands.c.seq, where=_unfinished)
# In the order in which commands are taken: ready ones are at the front, however many wait behind them. Ordered by `seq` alone,
# PostgreSQL would scan the whole history by primary key, as its planner assumes that waiting commands are spread evenly over it.
_index("commands_waiting", commands.c.instance, commands.c.created_at, commands.c.seq, where=_waiting)
_index("commands_due", commands.c.due_at, where=_waiting)
_index("commands_doubtful", commands.c.instance, where=_doubtful)
Index("commands_case", commands.c.case_id)


_INSERTED = ("id", "case_id", "instance", "type", "body", "state", "attempts", "created_at", "updated_at")


def accept(conn: Connection, command: Command, raw: bytes, at: str) -> int:
    """Insert a command, once by its id; 1 if it is new."""
    return len(accept_all(conn, [(command, raw)], at))


def accept_all(
    conn: Connection, requested: Sequence[tuple[Command, bytes]], at: str, doubtful_until: str | None = None
) -> frozenset[str]:
    """Insert commands in their order, each once by its id; returns the ids of the new ones.

    A command issued at or before `doubtful_until` starts as UNKNOWN, so it is looked up before it is sent: a lost ledger may have
    executed it already.
    """
    rows = [(c.id, c.case, c.instance, c.type, raw, _first_state(c, doubtful_until), 0, at, at) for c, raw in requested]
    return frozenset(insert_all_new(conn, commands, _INSERTED, rows, "id"))


def _first_state(command: Command, doubtful_until: str | None) -> str:
    return "UNKNOWN" if doubtful_until is not None and command.time <= doubtful_until else "NEW"


def _ready() -> Select[Any]:
    earlier = commands.alias()
    unfinished = earlier.c.state.not_in(_literals(ENDED))
    behind = exists().where(earlier.c.case_id == commands.c.case_id, earlier.c.seq < commands.c.seq, unfinished)
    due = or_(commands.c.due_at.is_(None), commands.c.due_at <= bound("now"))
    mine = and_(_waiting, commands.c.instance == bound("of"))
    return select(commands).where(mine, due, ~behind).limit(bound("most"))


# Statements of the hot path are built once: building one costs SQLAlchemy several times what SQLite needs to execute it.
_READY = _ready().order_by(commands.c.created_at, commands.c.seq)
_LEAST_TRIED = _ready().order_by(commands.c.attempts, commands.c.due_at.nulls_first(), commands.c.seq)
_NEXT_DUE = select(func.min(commands.c.due_at)).where(_waiting, commands.c.due_at > bound("after"))


def _instances() -> Select[Any]:
    """A loose index scan: one index lookup for each instance, however many commands wait for it."""
    first = select(func.min(commands.c.instance).label("name")).where(_waiting).cte("found", recursive=True)
    after = select(func.min(commands.c.instance)).where(_waiting, commands.c.instance > first.c.name).scalar_subquery()
    found = first.union_all(select(after).where(first.c.name.is_not(None)))
    return select(found.c.name).where(found.c.name.is_not(None))


_INSTANCES = _instances()
_GET = select(commands).where(commands.c.id == bound("command"))
_TAKEN = (
    commands.c.id,
    commands.c.state,
    commands.c.attempts,
    commands.c.owner,
    commands.c.deadline,
    commands.c.updated_at,
)
_TAKE = """
    WITH given (id, state, attempts, owner, deadline, updated_at) AS ({given})
    UPDATE commands SET state = 'SENDING', attempts = commands.attempts + 1,
        owner = given.owner, deadline = given.deadline, updated_at = given.updated_at
    FROM given WHERE commands.id = given.id AND commands.state = given.state AND commands.attempts = given.attempts
    RETURNING commands.id
"""
_END = """
    WITH given (id, owner, state, attempts, due_at, code, reason, effect_id, response, updated_at) AS ({given})
    UPDATE commands SET state = given.state, attempts = given.attempts, due_at = given.due_at, code = given.code,
        reason = given.reason, effect_id = given.effect_id, response = given.response, updated_at = given.updated_at,
        owner = NULL, deadline = NULL
    FROM given WHERE commands.id = given.id AND commands.state = 'SENDING' AND commands.owner = given.owner
    RETURNING commands.id
"""
_CONCLUDE = """
    WITH given (id, state, effect_id, updated_at) AS ({given})
    UPDATE commands SET state = given.state, effect_id = given.effect_id, updated_at = given.updated_at,
        owner = NULL, due_at = NULL, deadline = NULL
    FROM given WHERE commands.id = given.id AND commands.state NOT IN ('DONE', 'DISCARDED')
"""
_CONCLUDED = (commands.c.id, commands.c.state, commands.c.effect_id, commands.c.updated_at)


class End(NamedTuple):
    """The outcome of a call by `owner`: the command's new state and its details. `response` is JSON."""

    id: str
    owner: str
    state: str
    attempts: int
    due_at: str | None = None
    code: str | None = None
    reason: str | None = None
    effect_id: str | None = None
    response: str | None = None


_ENDED = tuple(commands.c[name] for name in (*End._fields, "updated_at"))


@functools.cache
def _ending(columns: tuple[str, ...]) -> Update:
    mine = and_(commands.c.id == bound("command"), commands.c.state == "SENDING", commands.c.owner == bound("by"))
    return update(commands).where(mine).values(owner=None, **{name: bound(f"new_{name}") for name in columns})


def ready(conn: Connection, instance: str, now: str, limit: int) -> Sequence[AnyRow]:
    """Commands of an instance that may be executed now, oldest first: due, and the first unfinished one of their case."""
    return conn.execute(_READY, {"of": instance, "now": now, "most": limit}).all()


def ready_least_tried(conn: Connection, instance: str, now: str, limit: int) -> Sequence[AnyRow]:
    """As `ready`, ordered by the fewest attempts, then by the longest wait since the last."""
    return conn.execute(_LEAST_TRIED, {"of": instance, "now": now, "most": limit}).all()


def next_due(conn: Connection, after: str) -> str | None:
    """When the next waiting command is due; those due before `after` wait for something else."""
    return conn.execute(_NEXT_DUE, {"after": after}).scalar_one_or_none()


def instances(conn: Connection) -> Sequence[str]:
    """The instances with waiting commands."""
    return conn.execute(_INSTANCES).scalars().all()


def sending(conn: Connection) -> Sequence[AnyRow]:
    """Commands whose call has begun and not ended, of every owner."""
    return conn.execute(select(commands).where(_doubtful, commands.c.state == "SENDING")).all()


def take(conn: Connection, ready_rows: Sequence[tuple[AnyRow, str]], owner: str, at: str) -> frozenset[str]:
    """Claim commands for calls, each until its deadline: SENDING, one more attempt. Compare-and-set on state and attempts.

    Returns the ids of the claimed ones; another executor has claimed the rest.
    """
    rows = [(row.id, row.state, row.attempts, owner, deadline, at) for row, deadline in ready_rows]
    return frozenset(with_rows(conn, _TAKE, _TAKEN, rows).scalars()) if rows else frozenset()


def end_all(conn: Connection, ended: Sequence[End], at: str) -> frozenset[str]:
    """As `end`, for many; returns the ids of those whose owner still had them."""
    rows = [(*each, at) for each in ended]
    return frozenset(with_rows(conn, _END, _ENDED, rows).scalars()) if rows else frozenset()


def end(conn: Connection, command: str, owner: str, state: str, at: str, **values: Any) -> bool:
    """Change SENDING to another state; False when this owner has lost the command, and then its result must not be recorded."""
    changed = {"state": state, "updated_at": at, **values}
    parameters = {"command": command, "by": owner, **{f"new_{name}": value for name, value in changed.items()}}
    return conn.execute(_ending(tuple(changed)), parameters).rowcount == 1


def mark_doubtful(conn: Connection, instance: str, due: str, at: str) -> int:
    """Make an instance's waiting commands UNKNOWN, so they are looked up before being sent, from `due` on; returns how many."""
    waiting = and_(_waiting, commands.c.instance == instance, commands.c.state != "UNKNOWN")
    return conn.execute(update(commands).where(waiting).values(state="UNKNOWN", due_at=due, updated_at=at)).rowcount


def conclude_all(conn: Connection, ends: Sequence[tuple[str, str, str | None]], at: str) -> None:
    """Apply outcomes read from the log (id, state, effect id) to commands that have not ended yet."""
    if ends:
        with_rows(conn, _CONCLUDE, _CONCLUDED, [(*each, at) for each in ends])


def expire_calls(conn: Connection, now: str) -> int:
    """Turn calls past their deadline, whose owner has stopped, into UNKNOWN; returns how many."""
    lost = and_(_doubtful, commands.c.state == "SENDING", commands.c.deadline < now)
    return conn.execute(
        update(commands).where(lost).values(state="UNKNOWN", owner=None, due_at=None, updated_at=now)
    ).rowcount


def reopen(conn: Connection, command: str, at: str, doubtful: bool = False) -> bool:
    """Reopen a parked command as NEW, or as UNKNOWN (looked up first) if `doubtful`; False when it is not parked."""
    mine = and_(commands.c.id == command, commands.c.state == "PARKED")
    values = {
        "state": "UNKNOWN" if doubtful else "NEW",
        "due_at": None,
        "attempts": 0,
        "code": None,
        "reason": None,
        "updated_at": at,
    }
    return conn.execute(update(commands).where(mine).values(values)).rowcount == 1


def discard(conn: Connection, command: str, reason: str, at: str) -> bool:
    """Discard a parked command; its case goes on. False when it is not parked."""
    mine = and_(commands.c.id == command, commands.c.state == "PARKED")
    return (
        conn.execute(update(commands).where(mine).values(state="DISCARDED", reason=reason, updated_at=at)).rowcount == 1
    )


def get(conn: Connection, command: str) -> AnyRow | None:
    """A command by its id."""
    return conn.execute(_GET, {"command": command}).first()


def of_case(conn: Connection, case: str) -> Sequence[AnyRow]:
    """The commands of a case, in order."""
    return conn.execute(select(commands).where(commands.c.case_id == case).order_by(commands.c.seq)).all()


def done(conn: Connection, since: str, after: int, limit: int = 500) -> Sequence[AnyRow]:
    """Commands that became DONE since a time, with a `seq` above `after`, in order."""
    found = select(commands).where(commands.c.seq > after, commands.c.state == "DONE", commands.c.updated_at >= since)
    return conn.execute(found.order_by(commands.c.seq).limit(limit)).all()


def in_flight(conn: Connection, instance: str, accepted_by: str | None = None) -> bool:
    """Whether a call to this instance is running or has an unknown outcome, so that an unknown object may be its effect.

    With `accepted_by`, only commands accepted up to that time count.
    """
    found = select(commands.c.seq).where(_doubtful, commands.c.instance == instance)
    if accepted_by is not None:
        found = found.where(commands.c.created_at <= accepted_by)
    return conn.execute(found.limit(1)).first() is not None


def counts(conn: Connection) -> dict[tuple[str, str], int]:
    """The number of unfinished commands by instance and state."""
    columns = (commands.c.instance, commands.c.state)
    found = select(*columns, func.count()).where(_unfinished).group_by(*columns)
    return {(instance, state): number for instance, state, number in conn.execute(found)}


def states(conn: Connection) -> dict[str, int]:
    """The number of commands in each state."""
    return {
        key: value for key, value in conn.execute(select(commands.c.state, func.count()).group_by(commands.c.state))
    }
