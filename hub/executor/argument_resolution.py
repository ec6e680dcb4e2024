"""Resolves a command's arguments before it is sent: promises become ids, references become the target system's accounts and ids.

A reference is the hub's own name for something, which no other system knows. One that cannot be resolved is never sent as it is.
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
    """Looks up the accounts of persons at instances."""

    def account(self, person: str, instance: str, /) -> str:
        """The account of `person/<id>` at an instance; raises RejectedError for a person without one there."""

    def person_of(self, instance: str, account: str, /) -> str | None:
        """`person/<id>` of an account at an instance, None when no person has it."""


PromiseResolver = Callable[[str], str]
"""Maps a command's id to the id of the object it created. Raises RejectedError when it created none."""


@dataclass(frozen=True)
class CommandTarget:
    """The instance that a command goes to, and how references translate for it. `instances` are all that are connected."""

    instance: str
    people: AccountLookup
    instances: Collection[str] = ()

    def account(self, ref: str) -> str:
        """The account that a reference names there; raises RejectedError, with the place to add one, when it names none."""
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
        """An object's id there, from its id or its reference; raises RejectedError for an object of another system."""
        instance, _, id_ = text.partition("/")[2].partition("/")
        if not is_reference(text) or not id_ or instance not in self._known:
            return text
        if instance != self.instance:
            raise RejectedError("HUB-E4070", ref=text, instance=self.instance, at=instance)
        return id_

    def is_person_reference(self, text: str) -> bool:
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
class ResolvedCommand:
    """A command that can be sent (`sent`), and its `arguments` as events show them: promises resolved, persons not translated."""

    command: Command
    sent: Command
    arguments: Mapping[str, Any]


def resolve_arguments(command: Command, resolve: PromiseResolver, target: CommandTarget | None) -> ResolvedCommand:
    """Resolve a command's promises and references; `target` None leaves references as they are. Raises RejectedError."""
    arguments = {name: _substituted(value, resolve, str) for name, value in command.arguments.items()}
    if target is None:
        return ResolvedCommand(command, command.model_copy(update={"arguments": arguments}), arguments)
    model = spec_of(command).model
    sent = {
        name: _substituted(value, resolve, _translator(model, name, target))
        for name, value in command.arguments.items()
    }
    return ResolvedCommand(command, command.model_copy(update={"arguments": sent}), arguments)


def ledger_resolver(conn: Connection) -> PromiseResolver:
    """Return a resolver that looks promises up among the ledger's commands."""

    def resolve(promise: str) -> str:
        row = commands.get(conn, promise)
        if row is not None and row.state == "DISCARDED":
            raise RejectedError("HUB-E4063", promise=promise)
        if row is None or row.effect_id is None:
            raise RejectedError("HUB-E4064", promise=promise, state=row.state if row else "-")
        return str(row.effect_id)

    return resolve


def _substituted(value: Any, resolve: PromiseResolver, translate: Callable[[str], str]) -> Any:
    """The value with promises resolved and every other text translated; the id that a promise resolves to is not translated."""
    promise = promised(value)
    if promise is not None:
        return resolve(promise)
    if isinstance(value, str):
        return translate(value)
    if isinstance(value, dict):
        return {key: _substituted(part, resolve, translate) for key, part in value.items()}
    return [_substituted(part, resolve, translate) for part in value] if isinstance(value, list) else value


def _translator(model: Model, name: str, target: CommandTarget) -> Callable[[str], str]:
    """The translation of an argument's texts, by the kind that the catalogue declares for it."""
    kind = _argument_kinds(model).get(name, "anything")
    if kind == "person":
        return lambda text: target.account(text) if is_reference(text) else text
    if kind == "object":
        return target.object
    if kind == "anything":
        return lambda text: target.account(text) if target.is_person_reference(text) else text
    return str


@functools.cache
def _argument_kinds(model: Model) -> Mapping[str, str]:
    """Field → the kind of its value: a person, an object, anything, or text for people."""
    hints = typing.get_type_hints(model, include_extras=True)
    return {name: _kind_of(hints[name]) for name in model.model_fields}


def _kind_of(hint: object) -> str:
    """The kind that the catalogue's annotation declares, at any depth of the type hint."""
    marks = getattr(hint, "__metadata__", ())
    if hint is Any:
        return "anything"
    inner = [_kind_of(part) for part in typing.get_args(hint) if not isinstance(part, str)]
    kinds = [mark for mark in ("person", "object") if mark in marks] + [kind for kind in inner if kind != "text"]
    return kinds[0] if kinds else "text"
