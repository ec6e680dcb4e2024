"""What a rule that can be read will probably get wrong: fields that no event has, and values of the wrong type.

CEL cannot know the fields of an event when it compiles, so each rule is tried on a sample of every type that it waits for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from hub.errors import FatalError, HubError, RejectedError
from hub.rules.checking import near
from hub.rules.evaluation import Expression, Scope
from hub.rules.language import World, expressions_of
from hub.rules.people import PREFIX, person_fields
from hub.rules.rule import Rule
from hub.rules.rule_set import RuleSet
from schemas.catalog import EVENTS, json_schema

SURE = {"HUB-E3122", "HUB-E3125", "HUB-E3140", "HUB-E3142", "HUB-E3126"}
"""Failures on a sample that a real event would have too."""
_PATTERNS = {
    r"^[A-Z]{3}$": "CNY",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": "2026-11-20",
    r"^-?[0-9]{1,20}(\.[0-9]{1,10})?$": "1000.00",
}


def lint(rules: RuleSet, world: World) -> list[HubError]:
    """Warnings, in the order of rules and places; the same failure is told once for each place."""
    found: list[HubError] = []
    for rule in rules.rules:
        told = [*_unknown_fields(rule, world), *_failures(rule, world)]
        found += {(error.code, error.place): error for error in told}.values()
    return found


def _unknown_fields(rule: Rule, world: World) -> Iterator[HubError]:
    """Fields of `event.data` that none of the rule's types has."""
    types = [type_ for type_ in rule.when if type_ in EVENTS or world.fields.get(type_)]
    known = {name for type_ in types for name in _fields(type_, world)}
    if len(types) < len(rule.when) or not known:
        return
    for expression in _expressions(rule):
        for path in expression.reads:
            if path.root != "event" or path.parts[:1] != ("data",) or len(path.parts) < 2:
                continue
            field = path.parts[1]
            if isinstance(field, str) and field not in known:
                seen = {"field": field, "type": " / ".join(rule.when), "near": near(field, known), "rule": rule.name}
                yield FatalError("HUB-W3120", place=expression.at(path.spots[1]), **seen)


def _failures(rule: Rule, world: World) -> Iterator[HubError]:
    """What fails on a sample for another reason than a missing field: an event may bring more fields than its model has."""
    for type_ in rule.when:
        if type_ not in EVENTS:
            continue
        data = sample(type_, world)
        subject = f"{type_.split('.')[1]}/sample/1"
        event = {
            "id": "sample", "type": type_, "subject": subject, "version": "1", "time": "2026-11-20T02:00:00.000000Z",
            "recordedtime": "2026-11-20T02:00:00.000000Z", "source": "/connectors/sample", "case": subject, "actor": None,
            "data": data,
        }  # fmt: skip
        case = {"id": subject, "opened_by": subject, "entities": {subject: {"kind": "", "stage": "", "data": data}}}
        scope = world.engine.scope({"event": event, "case": case}, subject)
        for attempt in _attempts(rule, scope):
            try:
                attempt()
            except RejectedError as error:
                if _is_sure(error):
                    error.seen.setdefault("rule", rule.name)
                    yield error


def _attempts(rule: Rule, scope: Scope) -> Iterator[Callable[[], object]]:
    """Everything in a rule that can be evaluated with no more than an event and its case."""
    if rule.condition is not None:
        yield functools.partial(rule.condition.test, scope)
    if rule.for_each is not None:
        yield functools.partial(rule.for_each.items.value, scope)
    for request in rule.requests:
        for argument in request.arguments.values():
            roots = {path.root for expression in argument.template.expressions for path in expression.reads}
            if roots <= {"event", "case"}:
                yield functools.partial(argument.template.render, scope)


def _is_sure(error: RejectedError) -> bool:
    mistyped = error.code == "HUB-E3121" and "No matching overload" in str(error.seen.get("reason"))
    return error.code in SURE or mistyped


def _expressions(rule: Rule) -> Iterable[Expression]:
    if rule.condition is not None:
        yield rule.condition.expression
    if rule.for_each is not None:
        yield rule.for_each.items
    for request in rule.requests:
        yield from expressions_of(request)


def _fields(type_: str, world: World) -> set[str]:
    own = set(EVENTS[type_].model.model_fields) if type_ in EVENTS else set[str]()
    return own | set(world.fields.get(type_, ()))


def sample(type_: str, world: World) -> dict[str, Any]:
    """Data as an event of this type may have it: every field there, none of it empty."""
    someone = PREFIX + next(iter(world.people.people), "sample")
    people = person_fields(EVENTS[type_].model)
    return {name: someone if name in people else value for name, value in _sample(type_).items()}


@functools.cache
def _sample(type_: str) -> Mapping[str, Any]:
    schema = json_schema(type_)
    value: dict[str, Any] = _value(schema, schema.get("$defs", {}))
    return value


def _value(schema: dict[str, Any], defs: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        # Of several, a whole number fits the most operators: a warning must be sure.
        return _value(next((each for each in options if each.get("type") == "integer"), options[0]), defs)
    match schema.get("type"):
        case "object":
            return {name: _value(inner, defs) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema["items"], defs)] if "items" in schema else []
        case "integer" | "number":
            return max(1, int(schema.get("minimum", 1)))
        case "boolean":
            return True
    return _PATTERNS.get(schema.get("pattern", ""), "sample")
