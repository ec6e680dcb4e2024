"""Creates and changes projects and issues in Redmine, and finds them again by our mark."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from connectors.redmine.client import RedmineClient, Row
from connectors.redmine.mapping import custom_value, has_mark, identifier, issue_values, mark_note, project_values
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Effect, Idempotency, RateLimits
from schemas.envelope import Command


class RedmineTarget:
    """Carries out `project.create`, `task.create` and `task.update`.

    The mark of a project is its identifier, which Redmine keeps unique; of an issue, its custom field; of a change, a line
    in the issue's journal. The request that does the work also writes the mark. The default project and the assignee's
    membership, which a command may need as well, are created only when Redmine refuses without them; repeating that is harmless.
    """

    def __init__(
        self, client: RedmineClient, instance: str, settings: RedmineSettings, names: Names, people: RedmineUsers
    ) -> None:
        self._client, self._instance, self._settings = client, instance, settings
        self._names, self._people = names, people
        self._unmarkable: set[str] = set()
        self._handlers: Mapping[str, tuple[Callable[[Command], Effect], Callable[[Command], Effect | None]]] = {
            "project.create": (self._make_project, self._find_project),
            "task.create": (self._make_task, self._find_task),
            "task.update": (self._change_task, self._find_change),
        }

    @property
    def command_types(self) -> frozenset[str]:
        return frozenset(self._handlers)

    @property
    def limits(self) -> RateLimits:
        return self._settings.limits.limits

    def idempotency(self, type_: str) -> Idempotency:
        return Idempotency.LOOKUP

    def send(self, command: Command) -> Effect:
        """As `CommandSink.send`."""
        return self._handlers[command.type][0](command)

    def find(self, command: Command) -> Effect | None:
        """As `CommandSink.find`."""
        return self._handlers[command.type][1](command)

    def _make_project(self, command: Command) -> Effect:
        """Idempotent: Redmine refuses a second project with this identifier, and the first one is found."""
        try:
            return _project(self._client.create_project(project_values(command, self._names.field)))
        except RejectedError as refused:
            existing = self._find_project(command) if _is_invalid(refused) else None
            if existing is None:
                raise
            return existing

    def _find_project(self, command: Command) -> Effect | None:
        project = self._client.project(identifier(command))
        return _project(project) if project else None

    def _make_task(self, command: Command) -> Effect:
        project = str(command.arguments.get("project") or self._settings.project)
        field = self._names.field
        if project in self._unmarkable:
            raise RejectedError("HUB-E4303", instance=self._instance, project=project, field=self._settings.mark_field)
        values = issue_values(command, project, field) | self._tracker() | self._assignee(command)
        issue = self._with_prerequisites(values, project, lambda: self._client.create_issue(values))
        if custom_value(issue, field) != command.id:
            # This one is done and its id is known; but an uncertain next one could not be found again.
            self._unmarkable.add(project)
        return Effect(id=str(issue["id"]))

    def _find_task(self, command: Command) -> Effect | None:
        """A copy that a person made carries the mark too: ours is the first. Returns None only when the issue is surely absent."""
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
        values = {**self._changes(command, issue), **self._assignee(command), "notes": mark_note(command)}
        project = str(issue["project"]["id"])
        self._with_prerequisites(values, project, lambda: self._client.update_issue(issue["id"], values))
        return Effect(id=str(issue["id"]))

    def _find_change(self, command: Command) -> Effect | None:
        issue = self._issue(command)
        return Effect(id=str(issue["id"])) if has_mark(issue, command) else None

    def _issue(self, command: Command) -> Row:
        task = str(command.arguments["task"])
        issue = self._client.issue(int(task)) if task.isdecimal() else None
        if issue is None:
            self._client.me()
            raise RejectedError("HUB-E4306", instance=self._instance, issue=task)
        return issue

    def _changes(self, command: Command, issue: Row) -> Row:
        arguments = command.arguments
        values: Row = {}
        if arguments.get("title"):
            values["subject"] = arguments["title"]
        if arguments.get("due"):
            values["due_date"] = arguments["due"]
            if (issue.get("start_date") or "") > arguments["due"]:
                values["start_date"] = None
        if arguments.get("done") is not None and bool(arguments["done"]) != issue["status"]["is_closed"]:
            values["status_id"] = self._status(issue, done=bool(arguments["done"]))
        return values

    def _status(self, issue: Row, *, done: bool) -> int:
        """The first open or closed status that the workflow allows; Redmine would silently ignore any other."""
        allowed = [row for row in issue.get("allowed_statuses", ()) if row["is_closed"] == done]
        usable = [row for row in allowed if row["name"] not in self._settings.cancelled]
        if not usable:
            raise RejectedError("HUB-E4305", instance=self._instance, issue=issue["id"], status=issue["status"]["name"])
        return int(usable[0]["id"])

    def _tracker(self) -> Row:
        tracker = self._names.tracker
        return {"tracker_id": tracker} if tracker else {}

    def _assignee(self, command: Command) -> Row:
        account = command.arguments.get("assignee")
        return {"assigned_to_id": self._people.user(str(account))} if account else {}

    def _with_prerequisites(self, values: Row, project: str, request: Callable[[], Any]) -> Any:
        """Send a request; when Redmine refuses it as invalid, create its prerequisites and send it once more.

        A second refusal is raised: the first may have been for the prerequisite that was just created.
        """
        try:
            return request()
        except RejectedError as refused:
            if not _is_invalid(refused) or not self._create_prerequisites(values, project):
                raise
        return request()

    def _create_prerequisites(self, values: Row, project: str) -> bool:
        """Create what a refused request may lack, unless another thread has; returns whether there is such a thing."""
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
    """Whether Redmine refused the values as invalid, so that it changed nothing."""
    return refused.seen.get("status") == HTTPStatus.UNPROCESSABLE_ENTITY
