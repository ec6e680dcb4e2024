"""Projects and issues in Redmine: made once, found again by our mark, and changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from connectors.redmine.client import RedmineClient, Row
from connectors.redmine.mapping import custom_value, identifier, issue_values, note, noted, project_values
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Effect, Idempotency, RateLimits
from schemas.envelope import Command


class RedmineTarget:
    """Carries out `project.create`, `task.create` and `task.update`.

    The mark of a project is its identifier, which Redmine keeps unique; of an issue, its custom field; of a change, a line
    in the issue's journal. Each comes in the one request that does the work. What a command may need besides, the default
    project and the assignee's membership, is made only when Redmine refuses without it, and does no harm twice.
    """

    def __init__(
        self, client: RedmineClient, instance: str, settings: RedmineSettings, names: Names, people: RedmineUsers
    ) -> None:
        self._client, self._instance, self._settings = client, instance, settings
        self._names, self._people = names, people
        self._unmarkable: set[str] = set()
        self._does: Mapping[str, tuple[Callable[[Command], Effect], Callable[[Command], Effect | None]]] = {
            "project.create": (self._make_project, self._find_project),
            "task.create": (self._make_task, self._find_task),
            "task.update": (self._change_task, self._find_change),
        }

    @property
    def takes(self) -> frozenset[str]:
        return frozenset(self._does)

    @property
    def limits(self) -> RateLimits:
        return self._settings.limits.limits

    def once(self, type_: str) -> Idempotency:
        return Idempotency.MARK

    def send(self, command: Command) -> Effect:
        """As `Sends.send`."""
        return self._does[command.type][0](command)

    def find(self, command: Command) -> Effect | None:
        """As `Sends.find`."""
        return self._does[command.type][1](command)

    def _make_project(self, command: Command) -> Effect:
        """Sent twice it is made once: the second is refused for its identifier, and the first is found."""
        try:
            return _project(self._client.create_project(project_values(command, self._names.field)))
        except RejectedError as refused:
            made = self._find_project(command) if _is_invalid(refused) else None
            if made is None:
                raise
            return made

    def _find_project(self, command: Command) -> Effect | None:
        found = self._client.project(identifier(command))
        return _project(found) if found else None

    def _make_task(self, command: Command) -> Effect:
        project = str(command.arguments.get("project") or self._settings.project)
        field = self._names.field
        if project in self._unmarkable:
            raise RejectedError("HUB-E4303", instance=self._instance, project=project, field=self._settings.mark_field)
        values = issue_values(command, project, field) | self._tracker() | self._assignee(command)
        made = self._with_room(values, project, lambda: self._client.create_issue(values))
        if custom_value(made, field) != command.id:
            # Done, and its id is known; but the next one might be doubted, and could not be found again.
            self._unmarkable.add(project)
        return Effect(id=str(made["id"]))

    def _find_task(self, command: Command) -> Effect | None:
        """A copy that a person made carries the mark too: ours is the first. None is said only when it is sure."""
        field = self._names.field
        rows = self._client.with_value(field, command.id)
        for row in rows:
            if custom_value(row, field) == command.id:
                return Effect(id=str(row["id"]))
        if rows:
            raise FatalError("HUB-E4302", instance=self._instance, field=self._settings.mark_field)
        self._client.me()
        return None

    def _change_task(self, command: Command) -> Effect:
        issue = self._issue(command)
        values = {**self._changes(command, issue), **self._assignee(command), "notes": note(command)}
        project = str(issue["project"]["id"])
        self._with_room(values, project, lambda: self._client.update_issue(issue["id"], values))
        return Effect(id=str(issue["id"]))

    def _find_change(self, command: Command) -> Effect | None:
        issue = self._issue(command)
        return Effect(id=str(issue["id"])) if noted(issue, command) else None

    def _issue(self, command: Command) -> Row:
        task = str(command.arguments["task"])
        issue = self._client.issue(int(task)) if task.isdecimal() else None
        if issue is None:
            self._client.me()
            raise RejectedError("HUB-E4306", instance=self._instance, issue=task)
        return issue

    def _changes(self, command: Command, issue: Row) -> Row:
        given = command.arguments
        values: Row = {}
        if given.get("title"):
            values["subject"] = given["title"]
        if given.get("due"):
            values["due_date"] = given["due"]
            if (issue.get("start_date") or "") > given["due"]:
                values["start_date"] = None
        if given.get("done") is not None and bool(given["done"]) != issue["status"]["is_closed"]:
            values["status_id"] = self._status(issue, done=bool(given["done"]))
        return values

    def _status(self, issue: Row, *, done: bool) -> int:
        """The first status that says so among those that the workflow allows; Redmine would ignore any other in silence."""
        allowed = [row for row in issue.get("allowed_statuses", ()) if row["is_closed"] == done]
        fit = [row for row in allowed if row["name"] not in self._settings.cancelled]
        if not fit:
            raise RejectedError("HUB-E4305", instance=self._instance, issue=issue["id"], status=issue["status"]["name"])
        return int(fit[0]["id"])

    def _tracker(self) -> Row:
        tracker = self._names.tracker
        return {"tracker_id": tracker} if tracker else {}

    def _assignee(self, command: Command) -> Row:
        account = command.arguments.get("assignee")
        return {"assigned_to_id": self._people.user(str(account))} if account else {}

    def _with_room(self, values: Row, project: str, request: Callable[[], Any]) -> Any:
        """Send a request; when Redmine refuses it as invalid, make what it may lack and send it once more.

        The second refusal is the one to tell: the first may have been for what was just made.
        """
        try:
            return request()
        except RejectedError as refused:
            if not _is_invalid(refused) or not self._make_room(values, project):
                raise
        return request()

    def _make_room(self, values: Row, project: str) -> bool:
        """Make what a refused request may lack, unless another thread was quicker; whether there is such a thing."""
        by_default, assigned = project == self._settings.project, "assigned_to_id" in values
        with contextlib.suppress(RejectedError):
            if by_default and self._client.project(project) is None:
                self._client.create_project(self._default_project())
        with contextlib.suppress(RejectedError):
            if assigned:
                self._client.add_member(project, values["assigned_to_id"], self._names.role)
        return by_default or assigned

    def _default_project(self) -> Row:
        return {
            "name": self._settings.project_name,
            "identifier": self._settings.project,
            "issue_custom_field_ids": [self._names.field],
        }


def _project(row: Row) -> Effect:
    return Effect(id=str(row["id"]), response={"identifier": row["identifier"]})


def _is_invalid(refused: RejectedError) -> bool:
    """Whether Redmine found the values wrong, so that it changed nothing."""
    return refused.seen.get("status") == HTTPStatus.UNPROCESSABLE_ENTITY
