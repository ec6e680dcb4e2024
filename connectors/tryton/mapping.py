"""Maps Tryton's records to facts. Pure: rows in, facts out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from connectors.tryton import client
from hub.kit.connector import Fact

Row = Mapping[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

OPPORTUNITY_FIELDS = (
    "number",
    "description",
    "party",
    "party.name",
    "amount",
    "currency.code",
    "employee",
    "state",
    "write_date",
    "create_date",
    "write_uid.login",
    "create_uid.login",
)
WORK_FIELDS = (
    "name",
    "type",
    "comment",
    "party.name",
    "parent",
    "parent.type",
    "status.progress",
    "write_date",
    "create_date",
    "write_uid.login",
    "create_uid.login",
)
STAGES = {"won": "won", "lost": "lost", "cancelled": "lost"}
"""Tryton's states of a closed opportunity → ours; every other state is open. A cancelled one is lost: no order follows."""
REPORTED_FIELDS = ("description", "party", "amount", "currency.", "employee", "state")


def changed_at(row: Row) -> datetime:
    """When this state of a record began: Tryton's naive UTC."""
    moment: datetime = row["write_date"] or row["create_date"]
    return moment


def to_micros(moment: datetime) -> int:
    """A naive UTC time as microseconds since 1970: exact, and the version of the revision that began then."""
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def from_micros(micros_: int) -> datetime:
    """The naive UTC time of so many microseconds since 1970."""
    return (EPOCH + timedelta(microseconds=micros_)).replace(tzinfo=None)


def history_facts(
    instance: str, states: Sequence[Row], pending: Collection[int], logins: Mapping[int, str]
) -> Iterator[Fact]:
    """The facts of successive revisions of one opportunity, for the revisions in `pending` (microseconds) only.

    `states` have no gap, and begin with the one before the first pending revision, if there is one. `logins` maps employees to
    their users' logins. A revision that changed no reported field (only a comment, a probability) gives no fact.
    """
    for before, row in zip([None, *states], states, strict=False):
        if to_micros(changed_at(row)) in pending:
            yield from _revision_facts(instance, before, row, logins)


def _revision_facts(instance: str, before: Row | None, row: Row, logins: Mapping[int, str]) -> Iterator[Fact]:
    for name in _transitions(before, row):
        yield Fact(
            type=f"crm.opportunity.{name}",
            subject=f"opportunity/{instance}/{row['id']}",
            version=str(to_micros(changed_at(row))),
            time=changed_at(row).replace(tzinfo=UTC),
            data=_opportunity(row, logins),
            actor=_author(row),
            clears=() if row["employee"] else ("owner",),
        )


def _transitions(before: Row | None, row: Row) -> Iterator[str]:
    if before is None:
        yield "created"
    was, now = STAGES.get(before["state"]) if before else None, STAGES.get(row["state"])
    if was != now:
        yield now or "reopened"
    elif before and any(before[field] != row[field] for field in REPORTED_FIELDS):
        yield "changed"


def _opportunity(row: Row, logins: Mapping[int, str]) -> dict[str, Any]:
    data = {
        "name": row["description"] or row["number"] or str(row["id"]),
        "account": row["party."]["name"] if row["party."] else "",
        "amount": plain(row["amount"]),
        "currency": row["currency."]["code"],
        "stage": row["state"],
        "number": row["number"],
        "owner": logins.get(row["employee"]),
    }
    return {name: value for name, value in data.items() if value is not None}


def plain(amount: Decimal | None) -> str:
    """An amount as plain decimal text with the digits that Tryton keeps; an opportunity without one is worth 0."""
    return format(amount if amount is not None else Decimal(0), "f")


def is_done(row: Row) -> bool:
    """Whether a work's status is a final one: in Tryton that is a status whose own progress is 100 %."""
    return bool(row["status."] and row["status."]["progress"] == 1.0)


def work_facts(instance: str, rows: Iterable[Row], done: Collection[int], created: Collection[int]) -> Iterator[Fact]:
    """The facts of successive changes of projects and tasks.

    `done`: ids of works that were done before. `created`: ids of works whose creation was not yet emitted. A work that a command
    of ours created gives no `created` fact, because the command's effect does; and a project has no `reopened` event.
    """
    known = set(done)
    emitted = set()
    for row in rows:
        kind, id_, now = row["type"], row["id"], is_done(row)
        if id_ in created and id_ not in emitted and not mark_in(row["comment"]):
            yield _work_fact(instance, "created", row, row["create_date"], row["create_uid."])
        emitted.add(id_)
        if now and id_ not in known:
            yield _work_fact(instance, "completed", row, changed_at(row), row["write_uid."] or row["create_uid."])
        elif not now and id_ in known and kind == "task":
            yield _work_fact(instance, "reopened", row, changed_at(row), row["write_uid."] or row["create_uid."])
        (known.add if now else known.discard)(id_)


def _work_fact(instance: str, name: str, row: Row, at: datetime, user: Row | None) -> Fact:
    kind, parent = row["type"], row["parent."]
    by = user["login"] if user else None
    follows = f"{parent['type']}/{instance}/{parent['id']}" if parent else None
    return Fact(
        type=f"work.{kind}.{name}",
        subject=f"{kind}/{instance}/{row['id']}",
        version=str(to_micros(at)),
        time=at.replace(tzinfo=UTC),
        data=_project(row) if kind == "project" else _task(row, by),
        belongs_to=None if mark_in(row["comment"]) else follows,
        actor=by,
    )


def _project(row: Row) -> dict[str, Any]:
    customer = row["party."]["name"] if row["party."] else None
    return {"name": row["name"]} | ({"customer": customer} if customer else {})


def _task(row: Row, by: str | None) -> dict[str, Any]:
    parent = row["parent."]
    project = str(parent["id"]) if parent and parent["type"] == "project" else None
    data = {"title": row["name"], "project": project, "by": by}
    return {name: value for name, value in data.items() if value is not None}


def mark(command: str) -> str:
    """The comment line that names the command which created a work."""
    return f"baton:{command}"


def mark_in(comment: str | None) -> str | None:
    """The id of the command that created the work with this comment, None when a person created it."""
    marks = [line for line in (comment or "").splitlines() if line.startswith(mark(""))]
    return marks[-1].removeprefix(mark("")) if marks else None


def replay(sample: bytes, instance: str) -> tuple[Fact, ...]:
    """The facts of a recorded sample: all revisions of an opportunity, or changes of works, as Tryton answered them."""
    recorded = client.loads(sample)
    if "works" in recorded:
        works = recorded["works"]
        return tuple(work_facts(instance, works, done=(), created=[row["id"] for row in works]))
    states = recorded["revisions"]
    logins = {int(employee): login for employee, login in recorded["logins"].items()}
    return tuple(history_facts(instance, states, [to_micros(changed_at(row)) for row in states], logins))


def _author(row: Row) -> str | None:
    """The login of the user who made this revision."""
    user = row["write_uid."] or row["create_uid."]
    return user["login"] if user else None
