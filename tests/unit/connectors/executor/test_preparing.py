"""What is put in the place of promises and persons."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.executor.preparing import prepare
from hub.errors import RejectedError
from schemas.event import promise
from tests.executor_bench import FakePeople, command


def resolve(promised: str) -> str:
    return f"made-by-{promised}"


def account(person: str) -> str:
    return FakePeople({"person/nobody"}).account(person, "pm")


@pytest.mark.parametrize(
    ("type_", "field"),
    [
        ("task.create", "assignee"),
        ("task.update", "assignee"),
        ("message.send", "to"),
        ("approval.request", "of"),
    ],
)
def test_a_person_is_an_account_where_the_catalogue_says_so(type_: str, field: str) -> None:
    asked: dict[str, Any] = {field: "person/li.lei", "text": "person/li.lei", "title": "person/li.lei"}
    ready = prepare(command(type_=type_, **asked), resolve, account)
    assert ready.sent.arguments == {**asked, field: "li.lei@pm"}
    assert ready.asked == asked
    assert ready.command.arguments == asked


def test_what_is_no_person_stays() -> None:
    for value in (None, "", "7", "account/pm/7", ["person/li.lei"]):
        assert prepare(command(assignee=value), resolve, account).sent.arguments == {"assignee": value}


def test_where_persons_stay_persons_nothing_is_looked_up() -> None:
    ready = prepare(command(assignee="person/nobody"), resolve, None)
    assert ready.sent.arguments == {"assignee": "person/nobody"}


def test_promises_are_resolved_wherever_they_stand() -> None:
    arguments: dict[str, Any] = {
        "project": promise("a"),
        "fields": {"deep": [1, {"er": promise("b")}], "$promise": "a", "and": 1},
    }
    ready = prepare(command(type_="record.update", **arguments), resolve, account)
    assert ready.sent.arguments == ready.asked
    assert ready.asked == {
        "project": "made-by-a",
        "fields": {"deep": [1, {"er": "made-by-b"}], "$promise": "a", "and": 1},
    }


def test_a_person_without_an_account_is_refused() -> None:
    with pytest.raises(RejectedError, match="nobody"):
        prepare(command(assignee="person/nobody"), resolve, account)
