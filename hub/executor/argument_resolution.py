"""What stands in a command when it is sent: promises replaced by the ids they stand for, references by what their system knows.

A reference is the hub's own name for something: no other system knows it. What cannot be replaced is never sent as it is.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from hub.errors import Place, RejectedError
from hub.executor.command_events import spec_of
from hub.ledger import commands
from schemas.envelope import Command, is_reference, promised
from schemas.registry import Model


class AccountLookup(Protocol):
    """Who has which account where."""

    def account(self, person: str, instance: str, /) -> str:
        """The account of `person/<id>` at an instance; raises RejectedError for a person who has none there."""

    def person_of(self, instance: str, account: str, /) -> str | None:
        """`person/<id>` of an account at an instance, None when nobody has it."""


Resolve = Callable[[str], str]
"""From a command's id to the id of what it made. Raises RejectedError when nothing came of it."""


@dataclass(frozen=True)
class CommandTarget:
    """The instance that a command goes to, and what references mean there. `instances` are all that are connected."""

    instance: str
    people: AccountLookup
    instances: Collection[str] = ()

    def account(self, ref: str) -> str:
        """The account that a reference names there; raises RejectedError that says where to add it when it names none."""
        instance, account = self._account_in(ref)
        if instance == self.instance:
            return account
        person = ref if ref.startswith("person/") else self.people.person_of(instance, account) if instance else None
        if person is not None:
            return self.people.account(person, self.instance)
        if self.people.person_of(self.instance, ref) is not None:  # an account may look like a reference
            return ref
        place, code = Place("people.yaml"), "HUB-E4068" if instance else "HUB-E4069"
        raise RejectedError(code, place=place, ref=ref, instance=self.instance, account=account, at=instance)

    def object(self, text: str) -> str:
        """The id that an object has there, of its id or its reference; raises RejectedError for an object of another system."""
        instance, _, id_ = text.partition("/")[2].partition("/")
        if not is_reference(text) or not id_ or instance not in self._known:
            return text
        if instance != self.instance:
            raise RejectedError("HUB-E4070", ref=text, instance=self.instance, at=instance)
        return id_

    def is_somebody(self, text: str) -> bool:
        """Whether a text can only be a reference to a person or an account."""
        return is_reference(text) and (text.startswith("person/") or self._account_in(text)[0] in self._known)

    @property
    def _known(self) -> set[str]:
        return {*self.instances, self.instance}

    def _account_in(self, ref: str) -> tuple[str, str]:
        """Instance and account of `account/<instance>/<account>`; both empty for anything else."""
        if not ref.startswith("account/"):
            return "", ""
        instance, _, account = ref.removeprefix("account/").partition("/")
        return (instance, account) if account else ("", "")


@dataclass(frozen=True)
class Prepared:
    """A command that can be sent, and its arguments as events tell them: promises resolved, persons still persons."""

    command: Command
    sent: Command
    asked: Mapping[str, Any]


def prepare(command: Command, resolve: Resolve, target: CommandTarget | None) -> Prepared:
    """Make a command ready for its system; `target` None leaves references as they are. Raises RejectedError."""
    asked = {name: _filled(value, resolve, str) for name, value in command.arguments.items()}
    if target is None:
        return Prepared(command, command.model_copy(update={"arguments": asked}), asked)
    model = spec_of(command).model
    sent = {name: _filled(value, resolve, _reader(model, name, target)) for name, value in command.arguments.items()}
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


def _filled(value: Any, resolve: Resolve, text: Callable[[str], str]) -> Any:
    """The value with promises resolved and `text` made of every other text; an id that a promise gave is nothing but an id."""
    promise = promised(value)
    if promise is not None:
        return resolve(promise)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {key: _filled(part, resolve, text) for key, part in value.items()}
    return [_filled(part, resolve, text) for part in value] if isinstance(value, list) else value


def _reader(model: Model, name: str, target: CommandTarget) -> Callable[[str], str]:
    """What becomes of the texts in an argument, by what the catalogue says that it holds."""
    held = _held(model).get(name, "anything")
    if held == "person":
        return lambda text: target.account(text) if is_reference(text) else text
    if held == "object":
        return target.object
    if held == "anything":
        return lambda text: target.account(text) if target.is_somebody(text) else text
    return str


@functools.cache
def _held(model: Model) -> Mapping[str, str]:
    """What the fields of a model hold: a person, an object, anything, or text for people."""
    hints = typing.get_type_hints(model, include_extras=True)
    return {name: _holds(hints[name]) for name in model.model_fields}


def _holds(hint: object) -> str:
    """By the mark that the catalogue put on the type, whatever stands around it."""
    marks = getattr(hint, "__metadata__", ())
    if hint is Any:
        return "anything"
    inner = [_holds(part) for part in typing.get_args(hint) if not isinstance(part, str)]
    found = [mark for mark in ("person", "object") if mark in marks] + [one for one in inner if one != "text"]
    return found[0] if found else "text"
