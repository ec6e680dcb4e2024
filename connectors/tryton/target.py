"""Projects and tasks in Tryton: made once, and found again by our mark."""

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
    With Tryton's module project_plan a task is allocated to its assignee and finishes by its due day; without it both
    stand in the comment.
    """

    def __init__(self, client: TrytonClient, instance: str, limits: RateLimits) -> None:
        self._client, self._instance, self._limits = client, instance, limits

    @property
    def takes(self) -> frozenset[str]:
        return frozenset(KINDS)

    @property
    def limits(self) -> RateLimits:
        return self._limits

    def once(self, type_: str) -> Idempotency:
        return Idempotency.MARK

    def send(self, command: Command) -> Effect:
        """As `Sends.send`. Two works made at the same moment can get the same number on SQLite: then one is tried again."""
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
        """As `Sends.find`. A record that a person copied carries the mark too: ours is the first."""
        domain = [["comment", "like", f"%{mark(command.id)}%"], ["type", "=", KINDS[command.type]]]
        found = self._client.search("project.work", domain, ["comment"])
        marked = [row for row in found if mark_in(row["comment"]) == command.id]
        return Effect(id=str(marked[0]["id"])) if marked else None

    def _project(self, command: Command) -> Row:
        """A customer whom Tryton knows by exactly this name is linked; any other is named in the comment."""
        customer = command.arguments.get("customer")
        values: Row = {"name": command.arguments["name"], "comment": comment([], command)}
        if customer:
            found = self._client.search("party.party", [["name", "=", customer]], ["id"], limit=2)
            if len(found) == 1:
                values["party"] = found[0]["id"]
            else:
                values["comment"] = comment([f"客户 Customer: {customer}"], command)
        return values

    def _task(self, command: Command) -> Row:
        given = command.arguments
        values: Row = {"name": given["title"]}
        if given.get("project"):
            values["parent"] = self._id(given["project"])
        planned, lines = self._plan(given.get("assignee"), given.get("due"))
        return {**values, **planned, "comment": comment(lines, command)}

    def _plan(self, assignee: str | None, due: str | None) -> tuple[Row, list[str]]:
        """Fields for who and when, and comment lines for what Tryton has no field for."""
        fields: Row = {}
        lines = []
        if assignee and self._plans:
            fields["allocations"] = [["create", [{"employee": self._employee(assignee)}]]]
        elif assignee:
            lines.append(f"负责人 Assignee: {assignee}")
        if due and self._plans:
            fields["constraint_finish_date"] = date.fromisoformat(due)
        elif due:
            lines.append(f"截止 Due: {due}")
        return fields, lines

    @functools.cached_property
    def _plans(self) -> bool:
        """Whether Tryton has its module project_plan."""
        found = self._client.search("ir.model", [["name", "=", "project.allocation"]], ["id"], limit=1)
        return bool(found)

    def _employee(self, login: str) -> int:
        """The employee of a login, in our company."""
        users = self._client.search("res.user", [["login", "=", login]], ["employees"], limit=1)
        company = self._client.context()["company"]
        domain = [["id", "in", users[0]["employees"] if users else []], ["company", "=", company]]
        found = self._client.search("company.employee", domain, ["id"], limit=1)
        if not found:
            raise RejectedError("HUB-E4104", instance=self._instance, login=login)
        return int(found[0]["id"])

    def _id(self, text: Any) -> int:
        if not str(text).isdigit():
            raise RejectedError("HUB-E4006", instance=self._instance, reason=f"project {text!r}")
        return int(text)


def comment(lines: Iterable[str], command: Command) -> str:
    """A record's comment: what people should know, and the mark as its last line."""
    return "\n".join([*lines, mark(command.id)])
