"""Maps a command to its effect on a task of the hub's own. Pure: the command holds all that is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hub.kit.connector import Effect, Fact
from schemas.domains.work import TaskUpdate
from schemas.envelope import Command, parse_time

UPDATABLE_FIELDS = ("title", "assignee", "due")


def effect(command: Command) -> Effect:
    """The effect of a command. A new object takes the command's id, so that a repeat creates nothing new.

    An update creates no object: its effect carries facts about the task.
    """
    if command.type != "task.update":
        return Effect(command.id)
    update = TaskUpdate.model_validate(command.arguments)
    return Effect(task_id(update.task), facts=tuple(_facts(command, update)))


def task_id(task: str) -> str:
    """The id of a task that is named by its id or, as in events, by `task/<instance>/<id>`."""
    return task.rpartition("/")[2]


def _facts(command: Command, update: TaskUpdate) -> Iterator[Fact]:
    changes = {name: value for name in UPDATABLE_FIELDS if (value := getattr(update, name)) is not None}
    if changes:
        yield _fact(command, update, "assigned" if update.assignee else "changed", changes)
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
