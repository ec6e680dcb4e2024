from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from connectors.tryton.mapping import micros, moment, opportunity_facts, plain, work_fact
from hub.connector import Fact
from schemas.catalog import event_spec

AT = datetime.fromisoformat("2026-11-22T04:57:43.917537")
LOGINS = {1: "wang.fang"}


def opportunity(**changes: Any) -> dict[str, Any]:
    row = {
        "id": 7,
        "number": "3",
        "description": "智慧园区",
        "party": 6,
        "party.": {"id": 6, "name": "上海云帆"},
        "amount": Decimal("128000.50"),
        "currency.": {"id": 1, "code": "CNY"},
        "employee": 1,
        "state": "lead",
        "create_date": AT,
        "write_date": None,
        "create_uid.": {"id": 2, "login": "wang.fang"},
        "write_uid.": None,
    }
    return {**row, **changes}


def work(**changes: Any) -> dict[str, Any]:
    row = {
        "id": 9,
        "name": "启动会",
        "type": "task",
        "parent": 4,
        "status.": {"id": 1, "progress": None},
        "create_date": AT,
        "write_date": AT,
        "create_uid.": {"id": 6, "login": "baton"},
        "write_uid.": {"id": 5, "login": "lin.tao"},
    }
    return {**row, **changes}


def facts(before: dict[str, Any] | None, row: dict[str, Any]) -> list[Fact]:
    return list(opportunity_facts("crm", before, row, LOGINS))


def names(before: str | None, after: str) -> list[str]:
    first = opportunity(state=before) if before else None
    return [fact.type.rpartition(".")[2] for fact in facts(first, opportunity(state=after))]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (None, "lead", ["created"]),
        (None, "won", ["created", "won"]),
        ("lead", "opportunity", ["changed"]),
        ("opportunity", "converted", ["changed"]),
        ("converted", "won", ["won"]),
        ("opportunity", "lost", ["lost"]),
        ("lead", "cancelled", ["lost"]),
        ("converted", "lost", ["lost"]),
        ("lost", "lead", ["reopened"]),
        ("cancelled", "lead", ["reopened"]),
        ("won", "converted", ["reopened"]),
        ("won", "lost", ["lost"]),
        ("lost", "won", ["won"]),
        ("lost", "cancelled", ["changed"]),
        ("won", "won", []),
    ],
)
def test_each_move_between_states_says_what_it_is(before: str | None, after: str, said: list[str]) -> None:
    assert names(before, after) == said


@pytest.mark.parametrize(
    "change",
    [
        {"description": "二期"},
        {"party": 8},
        {"amount": Decimal(1)},
        {"currency.": {"id": 2, "code": "USD"}},
        {"employee": 2},
    ],
)
def test_a_change_of_what_is_told_is_a_fact(change: dict[str, Any]) -> None:
    assert [fact.type for fact in facts(opportunity(), opportunity(**change))] == ["crm.opportunity.changed"]


def test_a_fact_is_named_by_the_record_and_its_revision() -> None:
    (fact,) = facts(None, opportunity())
    assert (fact.subject, fact.version) == ("opportunity/crm/7", "1795323463917537")
    assert fact.time == AT.replace(tzinfo=UTC)
    assert (fact.actor, fact.belongs_to, fact.origin) == ("wang.fang", None, None)


def test_the_data_is_an_opportunity_of_the_catalogue() -> None:
    (fact,) = facts(None, opportunity())
    assert fact.data == {
        "name": "智慧园区",
        "account": "上海云帆",
        "amount": "128000.50",
        "currency": "CNY",
        "stage": "lead",
        "number": "3",
        "owner": "wang.fang",
    }
    event_spec(fact.type).model.model_validate(fact.data)


def test_a_bare_lead_is_told_too() -> None:
    bare = {"description": None, "party": None, "party.": None, "amount": None, "employee": None}
    (fact,) = facts(None, opportunity(**bare))
    assert fact.data == {
        "name": "3",
        "account": "",
        "amount": "0",
        "currency": "CNY",
        "stage": "lead",
        "number": "3",
    }
    event_spec(fact.type).model.model_validate(fact.data)


def test_an_employee_without_a_login_is_no_owner() -> None:
    (fact,) = facts(None, opportunity(employee=99))
    assert "owner" not in fact.data


@pytest.mark.parametrize(
    ("amount", "text"),
    [(Decimal("1E+3"), "1000"), (Decimal("0.10"), "0.10"), (Decimal("-5"), "-5"), (Decimal("1E-7"), "0.0000001")],
)
def test_amounts_are_plain_text(amount: Decimal, text: str) -> None:
    assert plain(amount) == text


def test_times_are_exact_to_the_microsecond() -> None:
    assert moment(micros(AT)) == AT
    assert micros(datetime.fromisoformat("1970-01-01T00:00:00.000001")) == 1


DONE = {"id": 2, "progress": 1.0}
HALF = {"id": 3, "progress": 0.5}


@pytest.mark.parametrize(
    ("kind", "status", "was_done", "said"),
    [
        ("task", DONE, False, "work.task.completed"),
        ("task", DONE, True, None),
        ("task", HALF, False, None),
        ("task", HALF, True, "work.task.reopened"),
        ("project", DONE, False, "work.project.completed"),
        ("project", HALF, True, None),
    ],
)
def test_a_work_is_told_when_it_becomes_done_or_open(
    kind: str, status: dict[str, Any], was_done: bool, said: str | None
) -> None:
    fact = work_fact("crm", work(**{"type": kind, "status.": status}), was_done=was_done)
    assert (fact.type if fact else None) == said


def test_a_finished_task_says_who_finished_it_and_which_project_it_follows() -> None:
    fact = work_fact("crm", work(**{"status.": DONE}), was_done=False)
    assert fact is not None
    assert (fact.subject, fact.version, fact.belongs_to) == ("task/crm/9", str(micros(AT)), "project/crm/4")
    assert fact.data == {"title": "启动会", "by": "lin.tao"}
    event_spec(fact.type).model.model_validate(fact.data)


def test_a_task_of_no_project_follows_none() -> None:
    fact = work_fact("crm", work(**{"status.": DONE, "parent": None}), was_done=False)
    assert fact is not None
    assert fact.belongs_to is None
