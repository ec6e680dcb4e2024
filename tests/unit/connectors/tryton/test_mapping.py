from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from connectors.tryton.mapping import (
    changed_at,
    from_micros,
    history_facts,
    mark,
    mark_in,
    plain,
    to_micros,
    work_facts,
)
from hub.kit.connector import Fact
from schemas.registry import event_spec

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
        "comment": None,
        "party.": None,
        "parent": 4,
        "parent.": {"id": 4, "type": "project"},
        "status.": {"id": 1, "progress": None},
        "create_date": AT,
        "write_date": AT,
        "create_uid.": {"id": 6, "login": "baton"},
        "write_uid.": {"id": 5, "login": "lin.tao"},
    }
    return {**row, **changes}


def facts(before: dict[str, Any] | None, row: dict[str, Any]) -> list[Fact]:
    """What a second state says after a first one, or one alone."""
    later = {**row, "write_date": AT + timedelta(seconds=1)} if before else row
    states = [before, later] if before else [later]
    return list(history_facts("crm", states, [to_micros(changed_at(later))], LOGINS))


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
    assert from_micros(to_micros(AT)) == AT
    assert to_micros(datetime.fromisoformat("1970-01-01T00:00:00.000001")) == 1


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
    row = work(**{"type": kind, "status.": status})
    assert [fact.type for fact in work_facts("crm", [row], [9] if was_done else [], [])] == ([said] if said else [])


def told_of(row: dict[str, Any], *, born: bool = False) -> Fact:
    (fact,) = work_facts("crm", [row], [], [row["id"]] if born else [])
    event_spec(fact.type).model.model_validate(fact.data)
    return fact


def test_a_finished_task_says_who_finished_it_and_which_project_it_follows() -> None:
    fact = told_of(work(**{"status.": DONE}))
    assert (fact.subject, fact.version, fact.belongs_to) == ("task/crm/9", str(to_micros(AT)), "project/crm/4")
    assert (fact.data, fact.actor) == ({"title": "启动会", "project": "4", "by": "lin.tao"}, "lin.tao")


def test_a_task_of_ours_is_in_the_case_that_made_it_whatever_project_it_is_in() -> None:
    fact = told_of(work(**{"status.": DONE, "comment": "call first\nbaton:c-1"}))
    assert (fact.type, fact.belongs_to) == ("work.task.completed", None)


@pytest.mark.parametrize(
    ("parent", "follows", "project"),
    [
        (None, None, None),
        ({"id": 4, "type": "project"}, "project/crm/4", "4"),
        ({"id": 5, "type": "task"}, "task/crm/5", None),
    ],
)
def test_a_task_follows_what_it_is_a_part_of(
    parent: dict[str, Any] | None, follows: str | None, project: str | None
) -> None:
    fact = told_of(work(**{"status.": DONE, "parent.": parent}))
    assert (fact.belongs_to, fact.data.get("project")) == (follows, project)


def test_what_people_make_is_told_as_of_its_making_and_what_we_make_is_not() -> None:
    later = AT + timedelta(hours=1)
    fact = told_of(work(write_date=later), born=True)
    assert (fact.type, fact.version, fact.actor) == ("work.task.created", str(to_micros(AT)), "baton")
    assert list(work_facts("crm", [work(comment=mark("c-1"))], [], [9])) == []
    project = told_of(work(**{"type": "project", "parent.": None, "party.": {"id": 6, "name": "海川集团"}}), born=True)
    assert project.data == {"name": "启动会", "customer": "海川集团"}


def test_one_that_was_made_and_finished_is_told_as_both() -> None:
    rows = [work(**{"status.": DONE, "write_date": AT + timedelta(seconds=1)})]
    assert [fact.type for fact in work_facts("crm", rows, [], [9])] == ["work.task.created", "work.task.completed"]


@pytest.mark.parametrize(
    ("comment", "command"),
    [
        (None, None),
        ("", None),
        ("see baton:c-1 for more", None),
        ("baton:c-1", "c-1"),
        ("客户 Customer: x\nbaton:c-1", "c-1"),
        ("baton:c-1\r\nadded later", "c-1"),
    ],
)
def test_the_mark_is_a_line_of_its_own(comment: str | None, command: str | None) -> None:
    assert mark_in(comment) == command


def test_what_was_told_is_not_told_again_but_still_says_what_came_before() -> None:
    first, second = opportunity(state="won"), opportunity(state="converted", write_date=AT + timedelta(seconds=1))
    told = history_facts("crm", [first, second], [to_micros(changed_at(second))], LOGINS)
    assert [fact.type for fact in told] == ["crm.opportunity.reopened"]


def test_successive_changes_of_a_task_are_told_in_turn() -> None:
    rows = [work(**{"status.": status}) for status in (DONE, DONE, HALF, DONE)]
    said = [fact.type for fact in work_facts("crm", rows, (), ())]
    assert said == ["work.task.completed", "work.task.reopened", "work.task.completed"]
