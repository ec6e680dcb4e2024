"""The hub's own service desk: demands, changes, approvals, feedback."""

from __future__ import annotations

from schemas.data import Data, Person


class Demand(Data):
    """A request to the hub's keepers. Subject: `demand/<instance>/<id>`."""

    title: str
    text: str | None = None
    by: Person | None = None


class Change(Data):
    """A change of rules, mappings or schemas. Subject: `change/<instance>/<id>`."""

    title: str
    text: str | None = None
    by: Person | None = None


class Approval(Data):
    """One person's decision. Subject: `approval/<instance>/<id>`."""

    of: Person
    text: str | None = None
    by: Person | None = None


class Feedback(Data):
    """What someone thinks of a card or a rule. Subject: what it is about."""

    text: str
    by: Person | None = None
    rule: str | None = None
