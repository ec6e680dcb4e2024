"""Commands become Redmine's fields; journals become facts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.redmine.mapping import (
    IssueHistory,
    Stages,
    has_mark,
    identifier,
    issue_values,
    mark_note,
    project_values,
    users_of,
)
from hub.kit.connector import Fact, Unmapped
from schemas.envelope import Command

STATUSES = [
    {"id": 1, "name": "新建", "is_closed": False},
    {"id": 2, "name": "进行中", "is_closed": False},
    {"id": 5, "name": "已关闭", "is_closed": True},
    {"id": 6, "name": "已拒绝", "is_closed": True},
]
STAGES = Stages.build(STATUSES, ["进行中"], ["已拒绝"])
ACCOUNTS = {1: "admin", 5: "li.lei", 6: "lin.tao"}
TELLER = IssueHistory("pm", STAGES, 3, ACCOUNTS.__getitem__)


def issue(*entries: dict[str, Any], status: int = 1, mark: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "project": {"id": 2, "name": "交付"},
        "status": {"id": status, "name": "?"},
        "author": {"id": 1, "name": "Redmine Admin"},
        "subject": "启动会",
        "due_date": None,
        "custom_fields": [{"id": 3, "name": "Baton", "value": mark or ""}],
        "created_on": "2026-01-05T09:00:00Z",
        "updated_on": "2026-01-05T10:00:00Z",
        "journals": list(entries),
        **more,
    }


def entry(id_: int, *changes: tuple[str, Any, Any], user: int | None = 5, notes: str = "") -> dict[str, Any]:
    return {
        "id": id_,
        "notes": notes,
        "created_on": f"2026-01-05T09:{id_:02}:00Z",
        "details": [
            {"property": "attr", "name": name, "old_value": old, "new_value": new} for name, old, new in changes
        ],
        **({"user": {"id": user, "name": "?"}} if user else {}),
    }


def status(old: int, new: int) -> tuple[str, str, str]:
    return "status_id", str(old), str(new)


def facts(told: dict[str, Any], since: str = "", after: int = -1) -> list[Fact]:
    found = TELLER.facts(told, since, after)
    assert all(isinstance(fact, Fact) for fact in found)
    return [fact for fact in found if isinstance(fact, Fact)]


def names(told: list[Fact]) -> list[str]:
    return [fact.type.removeprefix("work.task.") for fact in told]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (1, 2, ["started"]),
        (1, 5, ["completed"]),
        (2, 5, ["completed"]),
        (1, 6, ["cancelled"]),
        (5, 1, ["reopened"]),
        (5, 2, ["reopened", "started"]),
        (6, 1, ["reopened"]),
        (5, 6, ["cancelled"]),
        (6, 5, ["completed"]),
        (2, 1, []),
        (1, 99, []),
        (99, 5, ["completed"]),
    ],
)
def test_what_a_move_between_two_statuses_says(old: int, new: int, told: list[str]) -> None:
    assert [*STAGES.transitions(str(old), str(new))] == told


def test_an_issue_that_a_person_made_is_told_as_it_was_born() -> None:
    (fact,) = facts(issue(assigned_to={"id": 5, "name": "?"}, due_date="2026-02-01"))
    assert fact == Fact(
        type="work.task.created",
        subject="task/pm/7",
        version="0",
        time=datetime(2026, 1, 5, 9, tzinfo=UTC),
        data={"title": "启动会", "project": "2", "assignee": "li.lei", "due": "2026-02-01", "by": "admin"},
        belongs_to="project/pm/2",
        actor="admin",
    )


def test_our_own_issue_is_not_told_again_and_keeps_its_case() -> None:
    (fact,) = facts(issue(entry(4, status(1, 5)), status=5, mark="command-1"))
    assert (fact.type, fact.version, fact.belongs_to) == ("work.task.completed", "4", None)


def test_an_issue_born_closed_is_created_and_completed() -> None:
    assert names(facts(issue(status=5))) == ["created", "completed"]


def test_each_transition_is_told_as_the_issue_stood_then() -> None:
    told = facts(
        issue(
            entry(9, status(2, 5), ("subject", "启动会", "启动会（已开）"), user=6),
            entry(3, ("assigned_to_id", None, "5"), status(1, 2), ("due_date", "2026-02-01", "2026-03-01"), user=1),
            entry(12, ("project_id", "2", "8"), ("assigned_to_id", "5", "")),
            entry(14, ("assigned_to_id", None, "6")),
            status=5,
            subject="启动会（已开）",
            due_date="2026-03-01",
            project={"id": 8, "name": "?"},
            assigned_to={"id": 6, "name": "?"},
        )
    )
    assert [(fact.version, name) for fact, name in zip(told, names(told), strict=True)] == [
        ("0", "created"),
        ("3", "assigned"),
        ("3", "started"),
        ("9", "completed"),
        ("12", "changed"),
        ("14", "assigned"),
    ]
    assert [fact.data["title"] for fact in told] == [*["启动会"] * 3, *["启动会（已开）"] * 3]
    assert [fact.data.get("due") for fact in told] == ["2026-02-01", *["2026-03-01"] * 5]
    assert [fact.data.get("assignee") for fact in told] == [None, "li.lei", "li.lei", "li.lei", None, "lin.tao"]
    assert [fact.data["project"] for fact in told] == ["2", "2", "2", "2", "8", "8"]
    assert [fact.actor for fact in told] == ["admin", "admin", "admin", "lin.tao", "li.lei", "li.lei"]
    assert [fact.clears for fact in told] == [("assignee",), (), (), (), ("assignee",), ()]


def test_a_later_change_does_not_change_what_is_told_of_an_earlier_one() -> None:
    before = issue(entry(4, status(1, 5)), status=5)
    after = issue(entry(4, status(1, 5)), entry(6, status(5, 1), ("subject", "启动会", "新")), subject="新")
    assert facts(after)[: len(facts(before))] == facts(before)


def test_only_what_is_asked_for_is_told() -> None:
    told = issue(entry(4, status(1, 5)), entry(6, status(5, 1)), entry(8, status(1, 2)), status=2)
    assert [fact.version for fact in facts(told, after=4)] == ["6", "8"]
    assert [fact.version for fact in facts(told, since="2026-01-05T09:06:00Z")] == ["6", "8"]


def test_comments_and_other_fields_say_nothing() -> None:
    other = {"property": "cf", "name": "status_id", "old_value": "1", "new_value": "5"}
    told = issue(entry(4, notes="你好"), entry(5, ("done_ratio", "0", "50")), {**entry(6), "details": [other]})
    assert names(facts(told)) == ["created"]


def test_our_own_change_names_its_command() -> None:
    told = issue(entry(4, status(1, 5), notes="baton:command-9"), status=5)
    assert [fact.origin for fact in facts(told)] == [None, "command-9"]
    assert has_mark(told, command("task.update", id_="command-9"))
    assert not has_mark(told, command("task.update", id_="command-90"))
    assert not has_mark(told, command("task.update", id_="command"))


def test_a_change_by_nobody_is_told_without_a_name() -> None:
    (_, fact) = facts(issue(entry(4, status(1, 5), user=None), status=5))
    assert (fact.actor, "by" in fact.data) == (None, False)


@pytest.mark.parametrize("broken", [{"status": None}, {"created_on": "yesterday"}, {"project": {}}])
def test_an_issue_that_cannot_be_read_is_kept_with_its_bytes(broken: dict[str, Any]) -> None:
    (kept,) = TELLER.facts({**issue(), **broken})
    assert isinstance(kept, Unmapped)
    assert (kept.code, kept.subject) == ("HUB-E4307", "task/pm/7")
    assert b'"id":7' in kept.raw


def test_who_is_named_in_an_issue_that_cannot_be_told() -> None:
    broken = {"author": None, "assigned_to": {"id": 4}}
    journals = [{"user": {"id": "9"}, "details": [{}, "x"]}, "x"]
    given = [{"property": "attr", "name": "assigned_to_id", "old_value": None, "new_value": "12"}]
    assert users_of({**broken, "journals": [*journals, {"details": given}]}) == [4, 9, 12]


def command(type_: str, id_: str = "0b7a3d52-6f1f-5c55-9a55-6d4f3f0f6a01", **arguments: Any) -> Command:
    return Command(
        id=id_,
        type=type_,
        instance="pm",
        case="opportunity/crm/O-1",
        time="2026-01-05T09:00:00.000000Z",
        causationid="event-1",
        subject="opportunity/crm/O-1",
        rule="won",
        digest="d1",
        title={"zh": "赢单自动立项", "en": "A won deal becomes a project"},
        arguments=arguments,
        position=0,
    )


def test_a_project_s_identifier_is_its_mark() -> None:
    values = project_values(command("project.create", name="交付", customer="北京客户"), 3)
    assert values == {
        "name": "交付",
        "identifier": "baton-0b7a3d52-6f1f-5c55-9a55-6d4f3f0f6a01",
        "description": "客户 Customer: 北京客户\n"
        "接力 Baton: 赢单自动立项 / A won deal becomes a project (won) · opportunity/crm/O-1",
        "issue_custom_field_ids": [3],
    }


@pytest.mark.parametrize("id_", ["Command/1", "命令", "x" * 81])
def test_an_id_that_redmine_would_not_take_becomes_one_that_it_does(id_: str) -> None:
    made, other = identifier(command("project.create", id_)), identifier(command("project.create", id_ + "0"))
    assert made == identifier(command("project.create", id_))
    assert made != other
    assert len(made) <= 100
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")


def test_an_issue_carries_its_mark_and_may_be_due_in_the_past() -> None:
    asked = command("task.create", title="启动会", due="2020-01-31")
    values = issue_values(asked, "12", 3)
    assert values["custom_fields"] == [{"id": 3, "value": asked.id}]
    assert (values["project_id"], values["subject"]) == ("12", "启动会")
    assert (values["due_date"], values["start_date"]) == ("2020-01-31", None)
    assert "start_date" not in issue_values(command("task.create", title="a", due=None), "12", 3)


def test_a_note_says_which_command_it_was() -> None:
    asked = command("task.update")
    assert has_mark(issue(entry(1, notes=f"已改\n{mark_note(asked)}\n")), asked)
