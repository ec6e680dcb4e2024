"""What stands in a command when it is sent: promises replaced by the ids they stand for, persons by their accounts."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from connectors.executor.events import spec_of
from hub.errors import RejectedError
from hub.ledger import commands
from schemas.catalog import Model
from schemas.event import Command, promised


class People(Protocol):
    """Who has which account where."""

    def account(self, person: str, instance: str, /) -> str:
        """The account of `person/<id>` at an instance; raises RejectedError for a person who has none there."""


Resolve = Callable[[str], str]
"""From a command's id to the id of what it made. Raises RejectedError when nothing came of it."""


@dataclass(frozen=True)
class Prepared:
    """A command that can be sent, and its arguments as events tell them: promises resolved, persons still persons."""

    command: Command
    sent: Command
    asked: Mapping[str, Any]


def prepare(command: Command, resolve: Resolve, account: Resolve | None) -> Prepared:
    """Make a command ready for its system; `account` None leaves persons as they are. Raises RejectedError."""
    asked = {name: _resolved(value, resolve) for name, value in command.arguments.items()}
    sent = dict(asked)
    for name in _persons(spec_of(command).model) if account else ():
        value = asked.get(name)
        if account and isinstance(value, str) and value.startswith("person/"):
            sent[name] = account(value)
    return Prepared(command, command.model_copy(update={"arguments": sent}), asked)


def from_ledger(conn: Connection) -> Resolve:
    """Look promises up among the commands that are done."""

    def resolve(promise: str) -> str:
        row = commands.get(conn, promise)
        if row is not None and row.state == "DISCARDED":
            raise RejectedError("HUB-E4063", promise=promise)
        if row is None or row.effect_id is None:
            raise RejectedError("HUB-E4064", promise=promise, state=row.state if row else "-")
        return str(row.effect_id)

    return resolve


def _resolved(value: Any, resolve: Resolve) -> Any:
    promise = promised(value)
    if promise is not None:
        return resolve(promise)
    if isinstance(value, dict):
        return {key: _resolved(part, resolve) for key, part in value.items()}
    return [_resolved(part, resolve) for part in value] if isinstance(value, list) else value


@functools.cache
def _persons(model: Model) -> tuple[str, ...]:
    """The fields that hold a person."""
    hints = typing.get_type_hints(model, include_extras=True)
    return tuple(name for name, hint in hints.items() if _marks_person(hint))


def _marks_person(hint: object) -> bool:
    if "person" in getattr(hint, "__metadata__", ()):
        return True
    return any(_marks_person(part) for part in typing.get_args(hint))
