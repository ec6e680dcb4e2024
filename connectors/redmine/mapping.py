"""Maps commands to Redmine's fields, and an issue with its journal to facts. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from hub.errors import RejectedError
from hub.kit.connector import Fact, Unmapped
from schemas.envelope import Command, derived_id, parse_time

Row = Mapping[str, Any]
Account = Callable[[int], str]
"""Maps a Redmine user's id to the account by which people.yaml names that person."""
MARK_PATTERN = re.compile(r"\bbaton:(\S+)")
IDENTIFIER = re.compile(r"[a-z0-9_-]{1,80}")
OPEN, STARTED, COMPLETED, CANCELLED = "open", "started", "completed", "cancelled"
CLOSED = (COMPLETED, CANCELLED)
CLEARABLE_FIELDS = ("assignee", "due")
"""Fields that an issue may lose: a fact without one of them clears it."""
CREATION_VERSION = 0
"""The version of an issue's creation; journal entries count from 1."""


@dataclass(frozen=True)
class Stages:
    """The task stage of each of a Redmine's statuses; a status that no longer exists counts as open."""

    of: Mapping[str, str]

    @classmethod
    def build(cls, statuses: Sequence[Row], started: Collection[str], cancelled: Collection[str]) -> Stages:
        """Build from Redmine's list of statuses, and the names of those that mean more than open or closed."""

        def stage(row: Row) -> str:
            if row["is_closed"]:
                return CANCELLED if row["name"] in cancelled else COMPLETED
            return STARTED if row["name"] in started else OPEN

        return cls({str(row["id"]): stage(row) for row in statuses})

    def stage(self, status: str | None) -> str:
        return self.of.get(status or "", OPEN)

    def transitions(self, before: str | None, after: str | None) -> Iterator[str]:
        """The event names of a move from one status to another, in order."""
        old, new = self.stage(before), self.stage(after)
        if old in CLOSED and new not in CLOSED:
            yield "reopened"
        if old != new and new != OPEN:
            yield new


@dataclass(frozen=True)
class IssueState:
    """The fields of an issue that facts report, at one point of its history; ids as Redmine's journals write them."""

    subject: str | None
    status_id: str | None
    project_id: str | None
    assigned_to_id: str | None
    due_date: str | None

    @classmethod
    def now(cls, issue: Row) -> IssueState:
        assignee = issue.get("assigned_to")
        return cls(
            subject=issue["subject"],
            status_id=str(issue["status"]["id"]),
            project_id=str(issue["project"]["id"]),
            assigned_to_id=str(assignee["id"]) if assignee else None,
            due_date=issue.get("due_date"),
        )

    def before(self, entry: Row) -> IssueState:
        """The state before a journal entry."""
        old = {
            detail["name"]: detail.get("old_value") or None
            for detail in entry.get("details", ())
            if detail["property"] == "attr" and detail["name"] in self.__dataclass_fields__
        }
        return replace(self, **old)


@dataclass(frozen=True)
class IssueHistory:
    """Maps an issue's history to facts.

    Each fact holds the issue's state at that time, derived backwards from the current state: the same entry gives the same
    fact, whenever it is read.
    """

    instance: str
    stages: Stages
    field: int
    account: Account

    def facts(self, issue: Row, since: str = "", after: int = -1) -> list[Fact | Unmapped]:
        """The facts of journal entries of the second `since` or later whose id is larger than `after`, in order.

        An issue that cannot be mapped gives one Unmapped, HUB-E4307.
        """
        try:
            return [*self._facts(issue, since, after)]
        except (KeyError, TypeError, ValueError) as error:
            seen = {"instance": self.instance, "issue": issue["id"], "reason": repr(error)}
            subject = f"task/{self.instance}/{issue['id']}"
            return [Unmapped(orjson.dumps(issue), "HUB-E4307", seen, subject)]

    def _facts(self, issue: Row, since: str, after: int) -> Iterator[Fact]:
        initial, entries = _history(issue)
        creation = {"id": CREATION_VERSION, "created_on": issue["created_on"], "user": issue.get("author")}
        for entry, before, state in [(creation, None, initial), *entries]:
            if int(entry["id"]) > after and entry["created_on"] >= since:
                for name in self._transitions(issue, before, state):
                    yield self._fact(name, issue, entry, state)

    def _transitions(self, issue: Row, before: IssueState | None, after: IssueState) -> Iterator[str]:
        if before is None and not custom_value(issue, self.field):
            yield "created"  # for an issue of ours the command's effect gives this event
        if before is not None and after.assigned_to_id and after.assigned_to_id != before.assigned_to_id:
            yield "assigned"
        if before is not None and _was_cleared(before, after):
            yield "changed"
        yield from self.stages.transitions(before.status_id if before else None, after.status_id)

    def _fact(self, name: str, issue: Row, entry: Row, state: IssueState) -> Fact:
        user = entry.get("user")
        by = self.account(user["id"]) if user else None
        data = {
            "title": state.subject,
            "project": state.project_id,
            "assignee": self.account(int(state.assigned_to_id)) if state.assigned_to_id else None,
            "due": state.due_date,
            "by": by,
        }
        mark_note = MARK_PATTERN.search(entry.get("notes") or "")
        ours = custom_value(issue, self.field)
        return Fact(
            type=f"work.task.{name}",
            subject=f"task/{self.instance}/{issue['id']}",
            version=str(entry["id"]),
            time=parse_time(entry["created_on"]),
            data={field: value for field, value in data.items() if value is not None},
            belongs_to=None if ours else f"project/{self.instance}/{state.project_id}",
            actor=by,
            origin=mark_note[1] if mark_note else None,
            clears=tuple(name for name in CLEARABLE_FIELDS if data[name] is None),
        )


def _was_cleared(before: IssueState, after: IssueState) -> bool:
    pairs = ((before.assigned_to_id, after.assigned_to_id), (before.due_date, after.due_date))
    return any(had and not has for had, has in pairs)


def replay(sample: bytes, instance: str) -> tuple[Fact | Unmapped, ...]:
    """The facts of a recorded sample: an issue as Redmine answered it, with the statuses and logins of that Redmine."""
    recorded = orjson.loads(sample)
    stages = Stages.build(recorded["issue_statuses"], recorded["started"], recorded["cancelled"])
    logins = recorded["logins"]
    return tuple(
        IssueHistory(instance, stages, recorded["field"], lambda user: logins[str(user)]).facts(recorded["issue"])
    )


def dump_unmapped(
    issue: Row, statuses: Sequence[Row], logins: Mapping[int, str], field: int, since: tuple[str, int]
) -> bytes:
    """An unmappable issue with all that its mapping needs, so that `remap` sends no request."""
    context = {"issue_statuses": statuses, "logins": {str(user): login for user, login in logins.items()}}
    return orjson.dumps({"issue": issue, **context, "field": field, "since": since[0], "after": since[1]})


def remap(raw: bytes, instance: str, stages: Callable[[Sequence[Row]], Stages]) -> tuple[Fact | Unmapped, ...]:
    """Map what `dump_unmapped` wrote. Raises RejectedError for older parked issues, which were stored without their context."""
    stored = orjson.loads(raw)
    if not isinstance(stored, dict) or "issue_statuses" not in stored:
        raise RejectedError("HUB-E6106", instance=instance)
    logins = stored["logins"]
    mapper = IssueHistory(
        instance, stages(stored["issue_statuses"]), stored["field"], lambda user: logins.get(str(user), str(user))
    )
    return tuple(mapper.facts(stored["issue"], stored["since"], stored["after"]))


def users_of(issue: Row) -> list[int]:
    """The ids of the users that an issue and its journal name, as far as they can be read: the issue may be malformed."""
    entries = [entry for entry in issue.get("journals") or () if isinstance(entry, dict)]
    people = [issue.get("author"), issue.get("assigned_to"), *(entry.get("user") for entry in entries)]
    details = [detail for entry in entries for detail in entry.get("details") or () if isinstance(detail, dict)]
    ids = [each.get("id") for each in people if isinstance(each, dict)]
    ids += [d.get(value) for d in details if d.get("name") == "assigned_to_id" for value in ("old_value", "new_value")]
    return sorted({int(str(each)) for each in ids if str(each).isdecimal()})


def custom_value(row: Row, field: int) -> str | None:
    """The value of an object's custom field; None where the object has no such field."""
    values = (entry.get("value") for entry in row.get("custom_fields", ()) if entry["id"] == field)
    return next(values, None)


def last_entry(issue: Row) -> int:
    """The id of an issue's latest journal entry."""
    return max((int(entry["id"]) for entry in issue.get("journals", ())), default=CREATION_VERSION)


def _history(issue: Row) -> tuple[IssueState, list[tuple[Row, IssueState, IssueState]]]:
    """An issue's initial state, and each entry of its journal with the state before and after it, oldest first."""
    state = IssueState.now(issue)
    entries = []
    for entry in sorted(issue.get("journals", ()), key=lambda entry: int(entry["id"]), reverse=True):
        before = state.before(entry)
        entries.append((entry, before, state))
        state = before
    return state, entries[::-1]


def identifier(command: Command) -> str:
    """The identifier of the project that a command creates: Redmine keeps it unique, so it is the mark."""
    fits = IDENTIFIER.fullmatch(command.id)
    return f"baton-{command.id if fits else derived_id(command.id)}"


def mark_note(command: Command) -> str:
    """The line in an issue's journal that names the command which changed it."""
    return f"baton:{command.id}"


def has_mark(issue: Row, command: Command) -> bool:
    """Whether this command changed this issue."""
    matches = (MARK_PATTERN.search(entry.get("notes") or "") for entry in issue.get("journals", ()))
    return any(match[1] == command.id for match in matches if match)


def project_values(command: Command, field: int) -> dict[str, Any]:
    """A new project's fields; our custom field is enabled in it."""
    arguments = command.arguments
    customer = arguments.get("customer")
    lines = [f"客户 Customer: {customer}"] if customer else []
    return {
        "name": arguments["name"],
        "identifier": identifier(command),
        "description": "\n".join([*lines, why(command)]),
        "issue_custom_field_ids": [field],
    }


def issue_values(command: Command, project: str, field: int) -> dict[str, Any]:
    """A new issue's fields, without the assignee."""
    arguments = command.arguments
    values: dict[str, Any] = {
        "project_id": project,
        "subject": arguments["title"],
        "description": why(command),
        "custom_fields": [{"id": field, "value": command.id}],
    }
    if arguments.get("due"):
        # By default Redmine sets an issue's start to today, and then refuses an earlier due day.
        values |= {"due_date": arguments["due"], "start_date": None}
    return values


def why(command: Command) -> str:
    """The rule and subject behind a command, for people who read the object in Redmine."""
    title = " / ".join(dict.fromkeys(command.title.values())) or command.rule
    return f"接力 Baton: {title} ({command.rule}) · {command.subject}"
