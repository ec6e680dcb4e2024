"""Creates projects and tasks in Tryton, and finds them again by our mark."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import date
from typing import Any

from connectors.tryton.client import Row, TrytonClient
from connectors.tryton.mapping import mark, mark_in
from hub.errors import RejectedError, RetryableError
from hub.kit.connector import Effect, Idempotency, RateLimits
from schemas.envelope import Command

NUMBER_TAKEN = "The number on work must be unique."
KINDS = {"project.create": "project", "task.create": "task"}


class TrytonTarget:
    """Carries out `project.create` and `task.create` as records of `project.work`.

    The mark is a line of its own in the comment, so each command is one request: the record and its mark come together.
    With Tryton's module project_plan a task is allocated to its assignee and finishes by its due day; without it the comment
    names both.
    """

    def __init__(self, client: TrytonClient, instance: str, limits: RateLimits) -> None:
        self._client, self._instance, self._limits = client, instance, limits

    @property
    def command_types(self) -> frozenset[str]:
        return frozenset(KINDS)

    @property
    def limits(self) -> RateLimits:
        return self._limits

    def idempotency(self, type_: str) -> Idempotency:
        return Idempotency.LOOKUP

    def send(self, command: Command) -> Effect:
        """As `CommandSink.send`. On SQLite two works created at once can get the same number: RetryableError for one of them."""
        values = self._project(command) if command.type == "project.create" else self._task(command)
        company = self._client.context()["company"]
        values |= {"type": KINDS[command.type], "company": company}
        try:
            made = self._client.create("project.work", values, context={"language": "en"})
        except RejectedError as refused:
            if refused.seen.get("reason") == NUMBER_TAKEN:
                raise RetryableError("HUB-E4005", instance=self._instance, reason=NUMBER_TAKEN) from refused
            raise
        return Effect(id=str(made))

    def find(self, command: Command) -> Effect | None:
        """As `CommandSink.find`. A record that a person copied carries the mark too: ours is the first."""
        domain = [["comment", "like", f"%{mark(command.id)}%"], ["type", "=", KINDS[command.type]]]
        candidates = self._client.search("project.work", domain, ["comment"])
        marked = [row for row in candidates if mark_in(row["comment"]) == command.id]
        return Effect(id=str(marked[0]["id"])) if marked else None

    def _project(self, command: Command) -> Row:
        """A customer whom Tryton knows by exactly this name is linked; any other is named in the comment."""
        customer = command.arguments.get("customer")
        values: Row = {"name": command.arguments["name"], "comment": comment([], command)}
        if customer:
            parties = self._client.search("party.party", [["name", "=", customer]], ["id"], limit=2)
            if len(parties) == 1:
                values["party"] = parties[0]["id"]
            else:
                values["comment"] = comment([f"客户 Customer: {customer}"], command)
        return values

    def _task(self, command: Command) -> Row:
        arguments = command.arguments
        values: Row = {"name": arguments["title"]}
        if arguments.get("project"):
            values["parent"] = self._id(arguments["project"])
        planned, lines = self._plan(arguments.get("assignee"), arguments.get("due"))
        return {**values, **planned, "comment": comment(lines, command)}

    def _plan(self, assignee: str | None, due: str | None) -> tuple[Row, list[str]]:
        """Fields for assignee and due day, and comment lines for what Tryton has no field for."""
        fields: Row = {}
        lines = []
        if assignee and self._has_project_plan:
            fields["allocations"] = [["create", [{"employee": self._employee(assignee)}]]]
        elif assignee:
            lines.append(f"负责人 Assignee: {assignee}")
        if due and self._has_project_plan:
            fields["constraint_finish_date"] = date.fromisoformat(due)
        elif due:
            lines.append(f"截止 Due: {due}")
        return fields, lines

    @functools.cached_property
    def _has_project_plan(self) -> bool:
        """Whether Tryton has its module project_plan."""
        return bool(self._client.search("ir.model", [["name", "=", "project.allocation"]], ["id"], limit=1))

    def _employee(self, login: str) -> int:
        """The employee of a login, in our company."""
        users = self._client.search("res.user", [["login", "=", login]], ["employees"], limit=1)
        company = self._client.context()["company"]
        domain = [["id", "in", users[0]["employees"] if users else []], ["company", "=", company]]
        employees = self._client.search("company.employee", domain, ["id"], limit=1)
        if not employees:
            raise RejectedError("HUB-E4104", instance=self._instance, login=login)
        return int(employees[0]["id"])

    def _id(self, text: Any) -> int:
        if not str(text).isdigit():
            raise RejectedError("HUB-E4006", instance=self._instance, reason=f"project {text!r}")
        return int(text)


def comment(lines: Iterable[str], command: Command) -> str:
    """A record's comment: these lines for people, and the mark as its last line."""
    return "\n".join([*lines, mark(command.id)])
