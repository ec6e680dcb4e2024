"""What is put in the place of promises and persons."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hub.config.yaml_places import parse_yaml
from hub.errors import RejectedError
from hub.executor.argument_resolution import CommandTarget, ResolvedCommand, resolve_arguments
from hub.people import read_people
from schemas.envelope import promise
from tests.executor_bench import FakePeople, command

PM = CommandTarget("pm", FakePeople({"person/nobody"}), ("pm", "crm", "im"))


def resolve(promised: str) -> str:
    return f"made-by-{promised}"


@pytest.mark.parametrize(
    ("type_", "field", "words"),
    [
        ("task.create", "assignee", "title"),
        ("task.update", "assignee", "title"),
        ("message.send", "to", "text"),
        ("approval.request", "of", "text"),
    ],
)
def test_a_person_is_an_account_and_words_for_people_stay(type_: str, field: str, words: str) -> None:
    asked: dict[str, Any] = {field: "person/li.lei", words: "person/li.lei"}
    ready = resolve_arguments(command(type_=type_, **asked), resolve, PM)
    assert ready.sent.arguments == {**asked, field: "li.lei@pm"}
    assert ready.arguments == asked
    assert ready.command.arguments == asked


@pytest.mark.parametrize("value", [None, "", "7", 7, "li.lei@pm", "Li Lei/R&D", "rooms/"])
def test_what_is_no_reference_stays(value: Any) -> None:
    assert resolve_arguments(command(assignee=value), resolve, PM).sent.arguments == {"assignee": value}


NOBODY = [
    "person/nobody",
    "account/crm/U-99",
    "account/im/U-99",
    "account/gone/U-99",
    "account/U-99",
    "opportunity/crm/O-1",
    "role/engineer",
    "department/sales",
    "lead/crm/1/2",
]


@pytest.mark.parametrize("ref", NOBODY)
@pytest.mark.parametrize("put", [lambda ref: ref, lambda ref: ["7", ref], lambda ref: {"one": [ref]}])
@pytest.mark.parametrize(
    ("type_", "field"),
    [("task.create", "assignee"), ("task.update", "assignee"), ("message.send", "to"), ("approval.request", "of")],
)
def test_a_reference_that_is_no_account_there_is_never_sent(type_: str, field: str, put: Any, ref: str) -> None:
    with pytest.raises(RejectedError) as caught:
        resolve_arguments(command(type_=type_, **{field: put(ref)}), resolve, PM)
    assert ref in caught.value.message()


@pytest.mark.parametrize("ref", ["person/nobody", "account/crm/U-99"])
@pytest.mark.parametrize(
    ("type_", "arguments"),
    [
        ("record.update", {"record": "7", "fields": {"owner": {"id": "{ref}"}}}),
        ("message.send", {"to": "7", "text": "hi", "cc": ["{ref}"]}),
        ("ticket.open", {"reporter": "{ref}"}),
    ],
)
def test_nor_is_it_where_the_catalogue_says_nothing(type_: str, arguments: dict[str, Any], ref: str) -> None:
    asked = json.loads(json.dumps(arguments).replace("{ref}", ref))
    with pytest.raises(RejectedError, match=ref):
        resolve_arguments(command(type_=type_, **asked), resolve, PM)


def test_where_the_catalogue_says_nothing_other_texts_stay() -> None:
    asked: dict[str, Any] = {"fields": {"path": "rooms/7", "stage": "account/closed", "of": "account/3/7"}}
    assert resolve_arguments(command(type_="record.update", **asked), resolve, PM).sent.arguments == asked


def test_an_account_of_the_system_itself_is_known_there() -> None:
    sent = resolve_arguments(command(assignee="account/pm/U-99"), resolve, PM).sent
    assert sent.arguments == {"assignee": "U-99"}


def test_an_account_that_somebody_has_by_now_is_that_person() -> None:
    """The command was asked for when nobody had it; people.yaml was mended since, and the command is tried again."""
    mended = "people:\n  li.lei: {name: 李雷, accounts: {crm: U-99, pm: '7'}}\n"
    people, _ = read_people(parse_yaml(mended, "people.yaml", {}))
    ready = resolve_arguments(command(assignee="account/crm/U-99"), resolve, CommandTarget("pm", people, ("pm", "crm")))
    assert ready.sent.arguments == {"assignee": "7"}
    assert ready.arguments == {"assignee": "account/crm/U-99"}


def test_an_account_may_look_like_a_reference_when_somebody_has_it() -> None:
    mended = "people:\n  robot: {name: 群, accounts: {im: spaces/AAAA}}\n"
    people, _ = read_people(parse_yaml(mended, "people.yaml", {}))
    for to in ("person/robot", "spaces/AAAA"):
        ready = resolve_arguments(command(type_="message.send", to=to), resolve, CommandTarget("im", people))
        assert ready.sent.arguments == {"to": "spaces/AAAA"}


def test_it_is_said_where_to_add_the_account() -> None:
    with pytest.raises(RejectedError) as caught:
        resolve_arguments(command(assignee="account/crm/U-99"), resolve, PM)
    assert caught.value.code == "HUB-E4068"
    assert str(caught.value.place) == "people.yaml"
    assert "accounts: {crm: U-99, pm: …}" in caught.value.fix()


@pytest.mark.parametrize(
    ("type_", "field"),
    [("task.create", "project"), ("task.update", "task"), ("card.update", "card"), ("record.update", "record")],
)
def test_an_object_is_sent_by_its_id_and_only_to_its_own_system(type_: str, field: str) -> None:
    def prepared(given: str) -> ResolvedCommand:
        asked: dict[str, Any] = {field: given}
        return resolve_arguments(command(type_=type_, **asked), resolve, PM)

    for given, sent in (
        ("project/pm/7", "7"),
        ("task/pm/a/b", "a/b"),
        ("7", "7"),
        ("", ""),
        ("a/2026/7", "a/2026/7"),
        ("Q4 plan/crm/7", "Q4 plan/crm/7"),
    ):
        assert prepared(given).sent.arguments == {field: sent}
        assert prepared(given).arguments == {field: given}
    with pytest.raises(RejectedError, match="opportunity/crm/O-1"):
        prepared("opportunity/crm/O-1")


def test_an_id_that_a_promise_gave_is_nothing_but_an_id() -> None:
    ready = resolve_arguments(command(project=promise("a"), assignee=promise("b")), lambda one: f"person/pm/{one}", PM)
    assert ready.sent.arguments == {"project": "person/pm/a", "assignee": "person/pm/b"}


def test_where_persons_stay_persons_nothing_is_looked_up() -> None:
    ready = resolve_arguments(command(assignee="person/nobody"), resolve, None)
    assert ready.sent.arguments == {"assignee": "person/nobody"}


def test_promises_are_resolved_wherever_they_stand() -> None:
    arguments: dict[str, Any] = {
        "project": promise("a"),
        "fields": {"deep": [1, {"er": promise("b")}], "$promise": "a", "and": 1},
    }
    ready = resolve_arguments(command(type_="record.update", **arguments), resolve, PM)
    assert ready.sent.arguments == ready.arguments
    assert ready.arguments == {
        "project": "made-by-a",
        "fields": {"deep": [1, {"er": "made-by-b"}], "$promise": "a", "and": 1},
    }


def test_a_person_without_an_account_is_refused() -> None:
    with pytest.raises(RejectedError, match="nobody"):
        resolve_arguments(command(assignee="person/nobody"), resolve, PM)
