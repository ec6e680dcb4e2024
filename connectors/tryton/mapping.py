"""Tryton's records → facts. Pure: rows in, facts out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hub.connector import Fact

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
    "parent",
    "status.progress",
    "write_date",
    "create_date",
    "write_uid.login",
    "create_uid.login",
)
STAGES = {"won": "won", "lost": "lost", "cancelled": "lost"}
"""Tryton's states of a closed opportunity; every other one is open. A cancelled one is lost: no order will come of it."""
TOLD = ("description", "party", "amount", "currency.", "employee", "state")


def changed_at(row: Row) -> datetime:
    """When this state of a record began: Tryton's naive UTC."""
    moment: datetime = row["write_date"] or row["create_date"]
    return moment


def micros(moment: datetime) -> int:
    """A naive UTC time as microseconds since 1970: exact, and the version of the revision that began then."""
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def moment(micros_: int) -> datetime:
    """The naive UTC time of so many microseconds since 1970."""
    return (EPOCH + timedelta(microseconds=micros_)).replace(tzinfo=None)


def opportunity_facts(instance: str, before: Row | None, row: Row, logins: Mapping[int, str]) -> Iterator[Fact]:
    """What one revision of an opportunity says, `before` being the revision before it, None for the first.

    `logins` names the employees' users. A revision that changed nothing we tell (a comment, a probability) says nothing.
    """
    for name in _happenings(before, row):
        yield Fact(
            type=f"crm.opportunity.{name}",
            subject=f"opportunity/{instance}/{row['id']}",
            version=str(micros(changed_at(row))),
            time=changed_at(row).replace(tzinfo=UTC),
            data=_opportunity(row, logins),
            actor=_login(row),
        )


def _happenings(before: Row | None, row: Row) -> Iterator[str]:
    if before is None:
        yield "created"
    was, now = STAGES.get(before["state"]) if before else None, STAGES.get(row["state"])
    if was != now:
        yield now or "reopened"
    elif before and any(before[field] != row[field] for field in TOLD):
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


def work_fact(instance: str, row: Row, *, was_done: bool) -> Fact | None:
    """What a change of a project or task says, when it was done or open before; None when that stayed as it was."""
    kind, done = row["type"], is_done(row)
    if done == was_done or (kind == "project" and not done):
        return None
    data = {"name": row["name"]} if kind == "project" else {"title": row["name"], "by": _login(row)}
    return Fact(
        type=f"work.{kind}.{'completed' if done else 'reopened'}",
        subject=f"{kind}/{instance}/{row['id']}",
        version=str(micros(changed_at(row))),
        time=changed_at(row).replace(tzinfo=UTC),
        data={name: value for name, value in data.items() if value is not None},
        belongs_to=f"project/{instance}/{row['parent']}" if row["parent"] else None,
        actor=_login(row),
    )


def _login(row: Row) -> str | None:
    """Who made this revision."""
    user = row["write_uid."] or row["create_uid."]
    return user["login"] if user else None
