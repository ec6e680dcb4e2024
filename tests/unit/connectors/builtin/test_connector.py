"""The hub's own tasks: what a command makes needs nothing but the command."""

from __future__ import annotations

import pytest

from connectors.builtin.connector import COMMAND_TYPES, connect
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Idempotency
from schemas.registry import COMMANDS
from tests.unit.hub.intake.instances import COMMAND_ID, command, instance, target

HUB = instance("{use: builtin}", use="builtin", name="pm")


def test_what_is_made_is_named_after_its_command() -> None:
    made = target(connect(HUB))
    for what in (
        command("project.create", name="智慧园区"),
        command("task.create", title="启动会"),
        command("message.send", to="person/li.lei", text="已立项"),
    ):
        assert made.send(what).id == COMMAND_ID
        assert made.send(what) == made.find(what)


def test_everything_is_done_once_by_nature() -> None:
    made = target(connect(HUB))
    assert made.command_types == COMMAND_TYPES <= set(COMMANDS)
    assert {made.idempotency(type_) for type_ in COMMAND_TYPES} == {Idempotency.KEY}


def test_an_update_tells_what_became_of_its_task() -> None:
    effect = target(connect(HUB)).send(command("task.update", task="task/pm/t-1", title="改期", done=True))
    assert effect.id == "t-1"
    assert [(fact.type, fact.subject, dict(fact.data)) for fact in effect.facts] == [
        ("work.task.changed", "task/pm/t-1", {"title": "改期"}),
        ("work.task.completed", "task/pm/t-1", {}),
    ]


def test_an_update_of_nothing_tells_nothing() -> None:
    assert target(connect(HUB)).send(command("task.update", task="t-1")).facts == ()


@pytest.mark.parametrize(
    ("type_", "arguments", "field"),
    [
        ("task.create", {}, "task.create.title"),
        ("task.create", {"title": "a", "due": "soon"}, "task.create.due"),
        ("project.create", {"name": 7}, "project.create.name"),
        ("message.send", {"to": "", "text": "a"}, "message.send.to"),
        ("task.update", {"title": "a"}, "task.update.task"),
    ],
)
def test_wrong_arguments_are_told(type_: str, arguments: dict[str, object], field: str) -> None:
    with pytest.raises(RejectedError) as caught:
        target(connect(HUB)).send(command(type_, **arguments))
    assert (caught.value.code, caught.value.seen["field"]) == ("HUB-E4251", field)


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(RejectedError) as caught:
        target(connect(HUB)).send(command("finance.post"))
    assert caught.value.code == "HUB-E4250"


def test_there_is_nothing_to_set() -> None:
    with pytest.raises(FatalError) as caught:
        connect(instance("{use: builtin, url: https://x.example}", use="builtin"))
    assert caught.value.code == "HUB-E4010"
