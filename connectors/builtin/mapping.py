"""What a command makes of a task of the hub's own. Pure: the command says it all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hub.kit.connector import Effect, Fact
from schemas.domains.work import TaskUpdate
from schemas.envelope import Command, parse_time

TOLD = ("title", "assignee", "due")


def effect(command: Command) -> Effect:
    """The object that a command makes is named after the command, so that doing it again makes nothing new.

    An update makes no object: it tells what became of its task.
    """
    if command.type != "task.update":
        return Effect(command.id)
    update = TaskUpdate.model_validate(command.arguments)
    return Effect(task_id(update.task), facts=tuple(_facts(command, update)))


def task_id(task: str) -> str:
    """A task may be named by its id or, as events do, by `task/<instance>/<id>`."""
    return task.rpartition("/")[2]


def _facts(command: Command, update: TaskUpdate) -> Iterator[Fact]:
    told = {name: value for name in TOLD if (value := getattr(update, name)) is not None}
    if told:
        yield _fact(command, update, "assigned" if update.assignee else "changed", told)
    if update.done is not None:
        yield _fact(command, update, "completed" if update.done else "reopened", {})


def _fact(command: Command, update: TaskUpdate, name: str, data: dict[str, Any]) -> Fact:
    return Fact(
        type=f"work.task.{name}",
        subject=f"task/{command.instance}/{task_id(update.task)}",
        version=command.id,
        time=parse_time(command.time),
        data=data,
        origin=command.id,
    )
