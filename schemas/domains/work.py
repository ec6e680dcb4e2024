"""Projects and tasks, and the commands that make them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.envelope import Command
from schemas.fields import Amount, Currency, Data, Day, Object, Person


class Cause(Data):
    """Why the hub acted: carried by every event about the effect of a command."""

    command: str = Field(description="the command's id")
    rule: str
    digest: str = Field(description="of the rule's text when it fired")
    title: dict[str, str] = Field(default_factory=dict, description="the rule's title by language")
    matched: dict[str, Any] = Field(default_factory=dict, description="what its condition read, and the values")
    event: str = Field(description="id of the event that the rule answered")
    subject: str = Field(description="the entity of that event")


def cause_of(command: Command) -> Cause:
    """Why a command was requested, as carried by the events about its effect."""
    return Cause(
        command=command.id,
        rule=command.rule,
        digest=command.digest,
        title=command.title,
        matched=command.matched,
        event=command.causationid,
        subject=command.subject,
    )


class Project(Data):
    """A project. Subject: `project/<instance>/<id>`."""

    name: str | None = Field(default=None, description="what the project is called")
    customer: str | None = Field(default=None, description="the customer's name")
    why: Cause | None = None


class TaskRequest(Data):
    """A task that a rule requested. Subject: `request/<instance>/<command id>`, until the system gives it an id."""

    title: str = Field(description="what is to be done")
    project: str | None = Field(default=None, description="the project's request or id, None for a task of no project")
    assignee: Person | None = None
    due: Day | None = None
    why: Cause


class Task(Data):
    """A task as it exists in its system. Subject: `task/<instance>/<id>`."""

    title: str | None = Field(default=None, description="what is to be done")
    project: str | None = Field(default=None, description="its project's id or reference")
    assignee: Person | None = None
    due: Day | None = None
    by: Person | None = Field(default=None, description="the person whose action this event reports")
    why: Cause | None = None


class ProjectCreate(Data):
    """`project.create`. Result: the project's id over there."""

    name: str = Field(description="what the project is called")
    customer: str | None = Field(default=None, description="the customer's name")


class TaskCreate(Data):
    """`task.create`. Result: the task's id over there."""

    title: str = Field(description="what is to be done")
    project: Object = Field(default="", description="its project's id or reference; empty for a task of no project")
    assignee: Person | None = None
    due: Day | None = None


class TaskUpdate(Data):
    """`task.update`: changes what is named, leaves the rest."""

    task: Object = Field(description="the task's id over there, or its reference")
    title: str | None = Field(default=None, description="what is to be done")
    assignee: Person | None = None
    due: Day | None = None
    done: bool | None = Field(default=None, description="true to finish it, false to open it again")


class MessageSend(Data):
    """`message.send`."""

    to: Person
    text: str = Field(description="the message, as plain text")


class CardUpdate(Data):
    """`card.update`: changes a card that an earlier message carried."""

    card: Object = Field(description="the card's id over there, or its reference")
    text: str = Field(description="its new text")


class RecordUpdate(Data):
    """`record.update`: changes fields of any record over there."""

    record: Object = Field(description="the record's id over there, or its reference")
    fields: dict[str, Any] = Field(description="the fields to change, by name")


class FinancePost(Data):
    """`finance.post`: one posting."""

    project: str = Field(description="the project's id, or the reference of its entity")
    amount: Amount
    currency: Currency


class ApprovalRequest(Data):
    """`approval.request`."""

    of: Person
    text: str = Field(description="what is to be approved")


class TimerSet(Data):
    """`timer.set`: a `hub.timer.fired` event of this case at that time."""

    at: str = Field(description="when it comes due, as an RFC 3339 time")
    name: str = Field(description="what the timer is called, to identify it")
