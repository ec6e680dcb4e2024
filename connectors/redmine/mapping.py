"""Commands → Redmine's fields, and an issue with its journal → facts. Pure."""

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
"""A Redmine user's id → the account by which people.yaml names that person."""
NOTE = re.compile(r"\bbaton:(\S+)")
IDENTIFIER = re.compile(r"[a-z0-9_-]{1,80}")
OPEN, STARTED, COMPLETED, CANCELLED = "open", "started", "completed", "cancelled"
CLOSED = (COMPLETED, CANCELLED)
CLEARED = ("assignee", "due")
"""What an issue may have no more: a fact that tells none of it says that it is empty."""
CREATION = 0
"""The version of what an issue was born with; journal entries count from 1."""


@dataclass(frozen=True)
class Stages:
    """What each of a Redmine's statuses means for a task; one that is gone by now counts as open."""

    of: Mapping[str, str]

    @classmethod
    def build(cls, statuses: Sequence[Row], started: Collection[str], cancelled: Collection[str]) -> Stages:
        """From Redmine's list of statuses, and the names of those that mean more than open or closed."""

        def stage(row: Row) -> str:
            if row["is_closed"]:
                return CANCELLED if row["name"] in cancelled else COMPLETED
            return STARTED if row["name"] in started else OPEN

        return cls({str(row["id"]): stage(row) for row in statuses})

    def stage(self, status: str | None) -> str:
        return self.of.get(status or "", OPEN)

    def happenings(self, before: str | None, after: str | None) -> Iterator[str]:
        """What a move from one status to another says, in order."""
        old, new = self.stage(before), self.stage(after)
        if old in CLOSED and new not in CLOSED:
            yield "reopened"
        if old != new and new != OPEN:
            yield new


@dataclass(frozen=True)
class IssueState:
    """What we tell of an issue, as it stood at a moment; ids as Redmine's journals write them."""

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
        """The state that a journal entry began from."""
        old = {
            detail["name"]: detail.get("old_value") or None
            for detail in entry.get("details", ())
            if detail["property"] == "attr" and detail["name"] in self.__dataclass_fields__
        }
        return replace(self, **old)


@dataclass(frozen=True)
class IssueHistory:
    """Tells an issue's history as facts.

    What each says of the issue is as it stood then, worked out backwards from now: the same entry gives the same fact,
    whenever it is read.
    """

    instance: str
    stages: Stages
    field: int
    account: Account

    def told(self, issue: Row, since: str = "", after: int = -1) -> list[Fact | Unmapped]:
        """What happened at the second `since` or later by journal entries whose id is larger than `after`, in order."""
        try:
            return [*self._facts(issue, since, after)]
        except (KeyError, TypeError, ValueError) as error:
            seen = {"instance": self.instance, "issue": issue["id"], "reason": repr(error)}
            subject = f"task/{self.instance}/{issue['id']}"
            return [Unmapped(orjson.dumps(issue), "HUB-E4307", seen, subject)]

    def _facts(self, issue: Row, since: str, after: int) -> Iterator[Fact]:
        born, entries = _history(issue)
        birth = {"id": CREATION, "created_on": issue["created_on"], "user": issue.get("author")}
        for entry, before, then in [(birth, None, born), *entries]:
            if int(entry["id"]) > after and entry["created_on"] >= since:
                for name in self._happenings(issue, before, then):
                    yield self._fact(name, issue, entry, then)

    def _happenings(self, issue: Row, before: IssueState | None, then: IssueState) -> Iterator[str]:
        if before is None and not custom_value(issue, self.field):
            yield "created"  # our own are told by the command that made them
        if before is not None and then.assigned_to_id and then.assigned_to_id != before.assigned_to_id:
            yield "assigned"
        if before is not None and _has_lost(before, then):
            yield "changed"
        yield from self.stages.happenings(before.status_id if before else None, then.status_id)

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
        note = NOTE.search(entry.get("notes") or "")
        ours = custom_value(issue, self.field)
        return Fact(
            type=f"work.task.{name}",
            subject=f"task/{self.instance}/{issue['id']}",
            version=str(entry["id"]),
            time=parse_time(entry["created_on"]),
            data={field: value for field, value in data.items() if value is not None},
            belongs_to=None if ours else f"project/{self.instance}/{state.project_id}",
            actor=by,
            origin=note[1] if note else None,
            clears=tuple(name for name in CLEARED if data[name] is None),
        )


def _has_lost(before: IssueState, then: IssueState) -> bool:
    pairs = ((before.assigned_to_id, then.assigned_to_id), (before.due_date, then.due_date))
    return any(had and not has for had, has in pairs)


def replay(sample: bytes, instance: str) -> tuple[Fact | Unmapped, ...]:
    """What a recorded sample says: an issue as Redmine answered it, with the statuses and logins of that Redmine."""
    recorded = orjson.loads(sample)
    stages = Stages.build(recorded["issue_statuses"], recorded["started"], recorded["cancelled"])
    logins = recorded["logins"]
    return tuple(
        IssueHistory(instance, stages, recorded["field"], lambda user: logins[str(user)]).told(recorded["issue"])
    )


def untold(issue: Row, statuses: Sequence[Row], logins: Mapping[int, str], field: int, since: tuple[str, int]) -> bytes:
    """An issue that could not be told, with all that telling it needs: `retold` then asks nobody."""
    context = {"issue_statuses": statuses, "logins": {str(user): login for user, login in logins.items()}}
    return orjson.dumps({"issue": issue, **context, "field": field, "since": since[0], "after": since[1]})


def retold(raw: bytes, instance: str, stages: Callable[[Sequence[Row]], Stages]) -> tuple[Fact | Unmapped, ...]:
    """Tell what `untold` wrote. Raises RejectedError for what was parked before issues were kept with their context."""
    kept = orjson.loads(raw)
    if not isinstance(kept, dict) or "issue_statuses" not in kept:
        raise RejectedError("HUB-E6106", instance=instance)
    logins = kept["logins"]
    teller = IssueHistory(
        instance, stages(kept["issue_statuses"]), kept["field"], lambda user: logins.get(str(user), str(user))
    )
    return tuple(teller.told(kept["issue"], kept["since"], kept["after"]))


def users_of(issue: Row) -> list[int]:
    """The users that an issue and its journal name, as far as they can be read: it is one that could not be told."""
    entries = [entry for entry in issue.get("journals") or () if isinstance(entry, dict)]
    people = [issue.get("author"), issue.get("assigned_to"), *(entry.get("user") for entry in entries)]
    details = [detail for entry in entries for detail in entry.get("details") or () if isinstance(detail, dict)]
    given = [each.get("id") for each in people if isinstance(each, dict)]
    given += [
        d.get(value) for d in details if d.get("name") == "assigned_to_id" for value in ("old_value", "new_value")
    ]
    return sorted({int(str(each)) for each in given if str(each).isdecimal()})


def custom_value(row: Row, field: int) -> str | None:
    """The value of an object's custom field; None where the object has no such field."""
    values = (entry.get("value") for entry in row.get("custom_fields", ()) if entry["id"] == field)
    return next(values, None)


def last_entry(issue: Row) -> int:
    """The id of an issue's latest journal entry."""
    return max((int(entry["id"]) for entry in issue.get("journals", ())), default=CREATION)


def _history(issue: Row) -> tuple[IssueState, list[tuple[Row, IssueState, IssueState]]]:
    """How an issue was born, and each entry of its journal with the state before and after it, oldest first."""
    state = IssueState.now(issue)
    entries = []
    for entry in sorted(issue.get("journals", ()), key=lambda entry: int(entry["id"]), reverse=True):
        before = state.before(entry)
        entries.append((entry, before, state))
        state = before
    return state, entries[::-1]


def identifier(command: Command) -> str:
    """The identifier of the project that a command makes: Redmine keeps it unique, so it is the mark."""
    fits = IDENTIFIER.fullmatch(command.id)
    return f"baton-{command.id if fits else derived_id(command.id)}"


def note(command: Command) -> str:
    """The line in an issue's journal that says which command changed it."""
    return f"baton:{command.id}"


def noted(issue: Row, command: Command) -> bool:
    """Whether a command changed this issue."""
    found = (NOTE.search(entry.get("notes") or "") for entry in issue.get("journals", ()))
    return any(match[1] == command.id for match in found if match)


def project_values(command: Command, field: int) -> dict[str, Any]:
    """A new project's fields; our custom field is switched on in it."""
    given = command.arguments
    customer = given.get("customer")
    lines = [f"客户 Customer: {customer}"] if customer else []
    return {
        "name": given["name"],
        "identifier": identifier(command),
        "description": "\n".join([*lines, why(command)]),
        "issue_custom_field_ids": [field],
    }


def issue_values(command: Command, project: str, field: int) -> dict[str, Any]:
    """A new issue's fields, but for who shall do it."""
    given = command.arguments
    values: dict[str, Any] = {
        "project_id": project,
        "subject": given["title"],
        "description": why(command),
        "custom_fields": [{"id": field, "value": command.id}],
    }
    if given.get("due"):
        # Redmine starts an issue today by itself, and then refuses a day before today as due.
        values |= {"due_date": given["due"], "start_date": None}
    return values


def why(command: Command) -> str:
    """What brought it about, for people who meet it over there."""
    title = " / ".join(dict.fromkeys(command.title.values())) or command.rule
    return f"接力 Baton: {title} ({command.rule}) · {command.subject}"
