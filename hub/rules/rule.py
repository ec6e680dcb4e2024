"""One rule, ready to run: the commands that it emits for an event. Pure: the same case and event give the same commands."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from hub.config.expecting import Words
from hub.config.strict_json import Json
from hub.config.validation import short
from hub.engine.case import ANY_RULE, Entity
from hub.errors import Place, RejectedError
from hub.expressions.expression import Condition, Expression, Scope
from hub.expressions.reading import PathRead, follow
from hub.expressions.templates import Template
from hub.people import PERSON_PREFIX, PeopleDirectory
from schemas.decoding import AnyEvent
from schemas.envelope import Command, derived_ids, promise, promised
from schemas.registry import event_spec

MAX_COMMANDS = 1000
"""The most commands of one rule for one event."""
MAX_ARGUMENTS = 200 * 1024
"""The largest arguments of a command, in bytes of JSON."""
Mode = Literal["live", "shadow", "off"]
CHANGED_SUFFIX = ".changed"
"""The suffix of event types that report changed fields of an entity: in a stage that a rule waits for, they concern that stage."""


@dataclass(frozen=True)
class Argument:
    """One argument of a command: its template, and the type it must have."""

    template: Template
    accepts: TypeAdapter[Any]
    expected: Words
    place: Place

    @functools.cached_property
    def is_open(self) -> bool:
        """Whether its value depends on the event, and so may be one that the command does not accept."""
        return bool(self.template.expressions)

    @functools.cached_property
    def is_text(self) -> bool:
        """Whether it accepts any text."""
        return self.accepts.core_schema == {"type": "str"}

    @functools.cached_property
    def accepts_text(self) -> Callable[[str], bool]:
        """Whether it accepts a text; cached, as the same people and dates recur."""
        return functools.lru_cache(1000)(self._validates)

    def _validates(self, text: str) -> bool:
        try:
            self.accepts.validate_python(text)
        except ValidationError:
            return False
        return True


@dataclass(frozen=True)
class RuleAction:
    """One entry of `do`: a command to emit. `name`, from `as:`, is how later entries refer to its result."""

    type: str
    instance: str
    name: str | None
    arguments: Mapping[str, Argument]
    place: Place
    slot: str = "0"
    """Identifies it in the ids of its commands: its position, from 0 on, unless `id:` sets another value."""

    @functools.cached_property
    def plan(self) -> Sequence[tuple[str, Argument, Callable[[Scope], Json]]]:
        """Its arguments, each with the function that renders it."""
        return [(name, argument, argument.template.render) for name, argument in self.arguments.items()]


@dataclass(frozen=True)
class ForEach:
    """`for each: {line: "${event.data.lines}", key: "${line.sku}"}`: `do` once for every item of a list.

    The key, else the item's position, is part of the ids of its commands: it must stay the same when the event is redelivered.
    """

    name: str
    items: Expression
    key: Template | None


class RuleInput(NamedTuple):
    """The input of a rule: an event, the id of its occurrence, and event and case as values for expressions.

    The event is already folded into the case.
    """

    event: AnyEvent
    occurrence: str
    scope: Scope


@dataclass(frozen=True)
class Rule:
    """A rule as its file defines it. `digest` changes with the rule's content, not with its comments or layout."""

    name: str
    title: Mapping[str, str]
    owner: str
    departments: tuple[str, ...]
    mode: Mode
    when: tuple[str, ...]
    condition: Condition | None
    for_each: ForEach | None
    requests: tuple[RuleAction, ...]
    digest: str
    place: Place
    case_reads: tuple[PathRead, ...]
    """The paths of the case that it reads."""
    renamed_from: tuple[str, ...] = ()
    """Its former names; the first one is part of the ids of its commands."""

    @property
    def first_name(self) -> str:
        """Its original name: the ids of its commands derive from it."""
        return self.renamed_from[0] if self.renamed_from else self.name

    def commands(self, occasion: RuleInput, people: PeopleDirectory, first: int) -> list[Command]:
        """The commands that it emits, in order, the first at position `first`; none when it does not apply.

        Raises RejectedError, with the rule's name, when an expression fails or gives a value that a command does not accept.
        """
        try:
            if self.concerns(occasion.event, people) and self._holds(occasion.scope):
                return self._commands(occasion, first)
        except RejectedError as error:
            error.seen.setdefault("rule", self.name)
            raise
        return []

    @functools.cached_property
    def stages(self) -> frozenset[str | None]:
        """The stages that it waits for."""
        return frozenset(event_spec(type_).stage for type_ in self.when) - {None}

    def waits_in_stage(self, entity: Entity, event: AnyEvent) -> bool:
        """Whether this event reports the stage that its entity is in, or a change in it: the rule fires once a stage."""
        stage, reported = entity.stage, event_spec(event.type).stage
        return stage in self.stages and (
            reported == stage or (reported is None and event.type.endswith(CHANGED_SUFFIX))
        )

    def has_fired(self, entity: Entity, event: AnyEvent) -> bool:
        """Whether it has fired in the stage that this event reports: then not again until the entity re-enters the stage.

        Where the case no longer records which rules fired (ANY_RULE), it may fire: the command ids are the same as before, and
        execution is idempotent. The exception are rules whose ids may differ: on a `.changed` event the id of that event is part
        of the command ids, and with `for each` the item's key.
        """
        if not self.waits_in_stage(entity, event):
            return False
        rules = entity.fired.get(entity.stage or "", ())
        if self.name in rules or not set(self.renamed_from).isdisjoint(rules):
            return True
        others = self.for_each is not None or any(type_.endswith(CHANGED_SUFFIX) for type_ in self.when)
        return ANY_RULE in rules and others and event_spec(event.type).stage is not None

    def _holds(self, scope: Scope) -> bool:
        return self.condition is None or self.condition.test(scope)

    def concerns(self, event: AnyEvent, people: PeopleDirectory) -> bool:
        """Whether it applies: a rule for some departments needs one of their people as actor or in a field of the data."""
        if not self.departments:
            return True
        named = [event.actor, *event.data.values()]
        found = [people.people.get(ref.removeprefix(PERSON_PREFIX)) for ref in named if isinstance(ref, str)]
        return any(person is not None and person.department in self.departments for person in found)

    def _commands(self, occasion: RuleInput, first: int) -> list[Command]:
        matched = self._matched(occasion.scope)
        commands = list[Command]()
        # Neither time nor digest: the same event under a changed rule must not be executed twice.
        ids_of = derived_ids("command", self.first_name, occasion.event.subject, occasion.occurrence)
        for key, item in self._items(occasion.scope):
            ids = [ids_of(request.slot, key) for request in self.requests]
            promises = {each.name: promise(id_) for each, id_ in zip(self.requests, ids, strict=True) if each.name}
            scope = occasion.scope.also({**item, **promises})
            shown = matched if self.for_each is None else {**matched, "for each": key}
            for id_, request in zip(ids, self.requests, strict=True):
                commands.append(self._command(id_, request, scope, shown, occasion.event, first + len(commands)))
        return commands

    def _command(
        self, id_: str, request: RuleAction, scope: Scope, matched: dict[str, Json], event: AnyEvent, position: int
    ) -> Command:
        return Command.trusted(
            {
                "id": id_,
                "type": request.type,
                "instance": request.instance,
                "case": event.case,
                "time": event.time,
                "causationid": event.id,
                "subject": event.subject,
                "rule": self.name,
                "digest": self.digest,
                "title": dict(self.title),
                "matched": matched,
                "arguments": _arguments(request, scope),
                "position": position,
            }
        )

    def _matched(self, scope: Scope) -> dict[str, Json]:
        if self.condition is None:
            return {}
        return {"if": self.condition.expression.text, **self.condition.expression.matched(scope)}

    def _check_length(self, items: Expression, scope: Scope) -> None:
        """Raise RejectedError for a list that is too long before evaluating it, where the expression is just its path."""
        named = [follow(path, scope.values) for path in items.reads if str(path) == items.text.strip()]
        if any(isinstance(found, list) and len(found) * len(self.requests) > MAX_COMMANDS for found in named):
            raise RejectedError("HUB-E3172", place=items.place, most=MAX_COMMANDS)

    def _items(self, scope: Scope) -> list[tuple[str, dict[str, Json]]]:
        """The key and the value of each item; a single empty item for a rule without `for each`."""
        if self.for_each is None:
            return [("", {})]
        each = self.for_each
        self._check_length(each.items, scope)
        items = each.items.value(scope)
        if not isinstance(items, list):
            raise RejectedError("HUB-E3170", place=each.items.place, expression=each.items.text, got=short(items))
        if len(items) * len(self.requests) > MAX_COMMANDS:
            raise RejectedError("HUB-E3172", place=each.items.place, most=MAX_COMMANDS)
        keyed = [(self._key(at, {each.name: item}, scope), {each.name: item}) for at, item in enumerate(items)]
        keys = [key for key, _ in keyed]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise RejectedError("HUB-E3171", place=each.items.place, key=twice)
        return keyed

    def _key(self, at: int, item: dict[str, Json], scope: Scope) -> str:
        assert self.for_each
        if self.for_each.key is None:
            return str(at)
        key = self.for_each.key.render(scope.also(item))
        if isinstance(key, str | int) and not isinstance(key, bool) and str(key):
            return str(key)[:200]
        raise RejectedError("HUB-E3170", place=self.for_each.items.place, expression="key", got=short(key))


def event_value(event: AnyEvent) -> dict[str, Json]:
    """The value of `event` in expressions."""
    return {
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "version": event.subjectversion,
        "time": event.time,
        "recordedtime": event.recordedtime,
        "source": event.source,
        "case": event.case,
        "actor": event.actor,
        "data": event.data,
    }


EVENT_NAMES = ("id", "type", "subject", "version", "time", "recordedtime", "source", "case", "actor", "data")
CASE_NAMES = ("id", "opened_by", "entities")


def _arguments(request: RuleAction, scope: Scope) -> dict[str, Json]:
    made, characters = {}, 0
    for name, argument, render in request.plan:
        value = made[name] = render(scope)
        if type(value) is str:
            characters += len(value)
            if argument.is_open and not (argument.is_text or argument.accepts_text(value)):
                _accept(request, name, argument, value)
        elif promised(value) is None:
            characters += MAX_ARGUMENTS
            if argument.is_open:
                _accept(request, name, argument, value)
    if characters > _SURELY_SMALL:
        _measure(request, made)
    return made


_SURELY_SMALL = MAX_ARGUMENTS // 8
"""Characters of text below which the size is not measured; JSON uses at most six bytes for each."""


def _measure(request: RuleAction, made: dict[str, Json]) -> None:
    size = len(orjson.dumps(made))
    if size > MAX_ARGUMENTS:
        raise RejectedError("HUB-E3174", place=request.place, command=request.type, bytes=size, most=MAX_ARGUMENTS)


def _accept(request: RuleAction, name: str, argument: Argument, value: Json) -> None:
    try:
        argument.accepts.validate_python(value)
    except ValidationError as error:
        raise RejectedError(
            "HUB-E3173",
            place=argument.place,
            command=request.type,
            argument=name,
            expected=argument.expected,
            got=short(value),
        ) from error
