"""The hub's own service desk: demands, changes, approvals, feedback."""

from __future__ import annotations

from pydantic import Field

from schemas.fields import Data, Person


class Demand(Data):
    """A request to the hub's maintainers. Subject: `demand/<instance>/<id>`."""

    title: str = Field(description="the demand in one line")
    text: str | None = Field(default=None, description="what is wanted, and why")
    by: Person | None = None


class Change(Data):
    """A change of rules, mappings or schemas. Subject: `change/<instance>/<id>`."""

    title: str = Field(description="the change in one line")
    text: str | None = Field(default=None, description="what should change, and why")
    by: Person | None = None


class Approval(Data):
    """One person's decision. Subject: `approval/<instance>/<id>`."""

    of: Person
    text: str | None = Field(default=None, description="what is to be approved")
    by: Person | None = None


class Feedback(Data):
    """What someone thinks of a card or a rule. Subject: what it is about."""

    text: str = Field(description="the remark")
    by: Person | None = None
    rule: str | None = Field(default=None, description="the rule that it is about, if it is about one")
