"""Lints valid rules: finds fields that no event has, roles that no person holds, and values of the wrong type.

CEL does not know the fields of an event when it compiles, so each rule is evaluated on samples of every type that it waits for. A
failure on all samples would park every event: an error. A failure on some is a warning.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hub.config.validation import near
from hub.errors import FatalError, HubError, RejectedError
from hub.expressions.expression import Expression, Scope
from hub.expressions.templates import FULL_WIDTH, literals
from hub.people import PERSON_PREFIX, PeopleDirectory, person_fields
from hub.rules.language import World, expressions_of
from hub.rules.rule import Rule, RuleAction
from hub.rules.rule_set import RuleSet
from schemas.registry import COMMANDS, EVENTS, json_schema

TYPE_CODES = {"HUB-E3121", "HUB-E3122", "HUB-E3125"}
"""Failures caused by a value's type: a real event's value has the sample's type."""
NAME_CODES = {"HUB-E3140": "role", "HUB-E3142": "person"}
"""Failures caused by a name: certain when the name is a literal of the rule."""
UNSURE_CODES = {"HUB-E3126", *NAME_CODES}
"""Failures that other events may not cause."""
PEOPLE_CODES = {*NAME_CODES, "HUB-E3146"}
"""Failures that do not count against a rule while people.yaml itself is invalid."""
_FIELD = re.compile(r"event\.data(?:\.|\[\")(\w+)")
LARGE_NUMBER = 10**8
"""A number that a rule may treat as large."""
_PATTERNS = {
    r"^[A-Z]{3}$": ("CNY", "CNY"),
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": ("2026-11-20", "2026-11-20"),
    r"^-?[0-9]{1,20}(\.[0-9]{1,10})?$": ("1000.00", f"{LARGE_NUMBER}.00"),
}


@dataclass
class Lint:
    """The findings: `errors` would park every event, `warnings` may park some."""

    errors: list[HubError] = field(default_factory=list)
    warnings: list[HubError] = field(default_factory=list)


def lint(rules: RuleSet, world: World) -> Lint:
    """Every failure, in the order of rules and places; the same one is reported once for each place."""
    found = Lint()
    for rule in rules.rules:
        tried = [_outcome(rule, attempt, world) for attempt in _attempts(rule)]
        errors = [FatalError(e.code, place=e.place, **e.seen) for e, sure in tried if e is not None and sure]
        errors += _unknown_people(rule, world.people)
        unknown = [error for error in _unknown_fields(rule, world) if not _is_reported(errors, error)]
        warnings = [error for error, sure in tried if error is not None and not sure]
        found.errors += _each_once(errors)
        found.warnings += _each_once(
            [*_full_width(rule), *unknown, *(error for error in warnings if not _is_reported([error], *unknown))]
        )
    return found


def _full_width(rule: Rule) -> Iterator[HubError]:
    """Full-width braces and dollar signs from an input method: they are not `${…}`, and hardly intended as text."""
    arguments = [argument for request in rule.requests for argument in request.arguments.values()]
    for argument in arguments:
        for text in literals(argument.template.root):
            for meant in FULL_WIDTH.finditer(text):
                details = {
                    "text": meant[0],
                    "meant": meant[0].translate(str.maketrans("＄｛｝", "${}")),
                    "rule": rule.name,
                }
                yield FatalError("HUB-W3117", place=argument.place, **details)


def _each_once(errors: Iterable[HubError]) -> Iterable[HubError]:
    return {(error.code, error.place): error for error in errors}.values()


def _is_reported(failures: Iterable[HubError], *unknown: HubError) -> bool:
    """Whether one of the failures already reports one of these unknown fields as missing."""
    fields = {f"event.data.{error.seen['field']}" for error in unknown}
    return any(error.seen.get("missing") in fields for error in failures)


def _unknown_fields(rule: Rule, world: World) -> Iterator[HubError]:
    """Fields of `event.data` that none of the rule's event types has."""
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
                details = {"field": field, "type": " / ".join(rule.when), "near": near(field, known), "rule": rule.name}
                yield FatalError("HUB-W3120", place=expression.at(path.spots[1]), **details)


@dataclass(frozen=True)
class Attempt:
    """One part of a rule that can be evaluated with an event, its case and, with `for each`, an item."""

    run: Callable[[Scope], object]
    expressions: tuple[Expression, ...]
    is_condition: bool = False

    def reads(self, fields: Collection[str]) -> bool:
        """Whether it reads one of these fields of the event's data, or all of them together."""
        paths = [
            path
            for each in self.expressions
            for path in each.reads
            if path.root == "event" and path.parts[:1] == ("data",)
        ]
        return any(len(path.parts) < 2 or path.parts[1] in fields for path in paths) if fields else False


def _attempts(rule: Rule) -> Iterator[Attempt]:
    if rule.condition is not None:
        yield Attempt(rule.condition.test, (rule.condition.expression,), is_condition=True)
    if rule.for_each is not None:
        yield Attempt(rule.for_each.items.value, (rule.for_each.items,))
    for request in rule.requests:
        for argument in request.arguments.values():
            expressions = argument.template.expressions
            roots = {path.root for expression in expressions for path in expression.reads}
            item = {rule.for_each.name} & roots if rule.for_each is not None else set[str]()
            if expressions and roots <= {"event", "case", *item}:
                yield Attempt(
                    _with_item(rule, argument.template.render) if item else argument.template.render, expressions
                )


def _with_item(rule: Rule, run: Callable[[Scope], object]) -> Callable[[Scope], object]:
    """Run it with the first item of `for each`; without effect where the sample has no items."""
    each = rule.for_each
    assert each is not None  # checked by the caller

    def first(scope: Scope) -> object:
        try:
            items = each.items.value(scope)
        except RejectedError:
            return None
        return run(scope.also({each.name: items[0]})) if isinstance(items, list) and items else None

    return first


def _outcome(rule: Rule, attempt: Attempt, world: World) -> tuple[HubError | None, bool]:
    """The first relevant failure, and whether it is certain: every sample on which the rule fires fails, whatever its type."""
    scopes = [each for type_ in rule.when for each in _samples(type_, world)]
    failures = [_failure(attempt, scope, unsure) for scope, unsure in scopes]
    acting = [
        error for error, (scope, _) in zip(failures, scopes, strict=True) if attempt.is_condition or _acts(rule, scope)
    ]
    first = next((error for error in (*acting, *failures) if error is not None), None)
    if first is not None:
        first.seen.setdefault("rule", rule.name)
    always = bool(acting) and all(error is not None and error.code not in UNSURE_CODES for error in acting)
    return first, always or all(_is_written(error) for error in failures)


def _acts(rule: Rule, scope: Scope) -> bool:
    try:
        return rule.condition is None or rule.condition.test(scope)
    except RejectedError:
        return False


def _failure(attempt: Attempt, scope: Scope, unsure: Collection[str]) -> RejectedError | None:
    """The failure on a sample, if a real event would fail, too; `unsure` are the fields whose values are unknown."""
    try:
        attempt.run(scope)
    except RejectedError as error:
        lacking = _FIELD.match(str(error.seen.get("missing")))
        if not any(each.reads for each in attempt.expressions):
            return error
        if error.code == "HUB-E3120":
            return error if lacking and lacking[1] not in unsure else None
        if error.code in TYPE_CODES:
            mistyped = error.code != "HUB-E3121" or error.seen.get("kind") == "types"
            return error if mistyped and not attempt.reads(unsure) else None
        return error if error.code in UNSURE_CODES and not attempt.reads(unsure) else None
    return None


def _is_written(error: HubError | None) -> bool:
    """Whether the unknown name is a literal of the rule, so that it fails for every event."""
    name = error.seen.get(NAME_CODES[error.code]) if error is not None and error.code in NAME_CODES else None
    return (
        name is not None
        and re.search(f"[\"']{re.escape(str(name))}[\"']", str(error and error.seen.get("expression"))) is not None
    )


def _unknown_people(rule: Rule, people: PeopleDirectory) -> Iterator[FatalError]:
    """People that the rule itself names as `person/…` in a command, and that people.yaml does not have."""
    for request in rule.requests:
        for argument in request.arguments.values():
            ref, id_ = argument.template.root, str(argument.template.root).removeprefix(PERSON_PREFIX)
            if isinstance(ref, str) and ref.startswith(PERSON_PREFIX) and id_ not in people.people:
                details = {"person": ref, "near": near(id_, people.people), "rule": rule.name}
                yield FatalError("HUB-E3142", place=argument.place, **details)


def without_account(rules: RuleSet, people: PeopleDirectory, instances: Collection[str]) -> Iterator[HubError]:
    """People that a rule itself names for one of these instances, in which they have no account."""
    for request in (request for rule in rules.rules for request in rule.requests if request.instance in instances):
        for ref in dict.fromkeys(_named(request, people)):
            id_ = ref.removeprefix(PERSON_PREFIX)
            if id_ in people.people and request.instance not in people.people[id_].accounts:
                yield FatalError("HUB-W3143", place=request.place, person=ref, instance=request.instance, id=id_)


_ROLE = re.compile(r"""\s*role\(\s*(["'])([^"'\\]+)\1\s*\)\s*""")


def _named(request: RuleAction, people: PeopleDirectory) -> Iterator[str]:
    """Every person that a command's arguments name by a literal of the rule, directly or through a role."""
    for name in person_fields(COMMANDS[request.type].model) & set(request.arguments):
        root = request.arguments[name].template.root
        role = _ROLE.fullmatch(root.text) if isinstance(root, Expression) else None
        if role is not None:
            yield from people.holders(role[2])
        elif isinstance(root, str) and root.startswith(PERSON_PREFIX):
            yield root


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


def _samples(type_: str, world: World) -> Iterator[tuple[Scope, Collection[str]]]:
    """Sample events of a type, each with the fields whose values are unknown: the home's own, and those without a fixed type."""
    own = set(world.fields.get(type_, ()))
    unsure = own if type_ not in EVENTS else (own - set(EVENTS[type_].model.model_fields)) | _open(type_)
    subject = f"{type_.split('.')[1] if type_.count('.') else type_}/sample/1"
    for number in range(_variants(type_)):
        data = {**dict.fromkeys(own, "sample"), **(sample(type_, world, number) if type_ in EVENTS else {})}
        time, someone = "2026-11-20T02:00:00.000000Z", None if number == 0 else PERSON_PREFIX + "sample"
        event = {
            "id": "sample", "type": type_, "subject": subject, "version": "1" if number == 0 else None, "time": time,
            "recordedtime": time, "source": "/connectors/sample", "case": subject, "actor": someone, "data": data,
        }  # fmt: skip
        case = {"id": subject, "opened_by": subject, "entities": {subject: {"kind": "", "stage": "", "data": data}}}
        yield world.engine.scope({"event": event, "case": case}, subject), unsure


def sample(type_: str, world: World, number: int = 0) -> dict[str, Any]:
    """Sample data of an event of this type, with every field set. `number` selects among the alternative types of a value."""
    someone = PERSON_PREFIX + next(iter(world.people.people), "sample")
    people = person_fields(EVENTS[type_].model)
    return {name: someone if name in people else value for name, value in _sample(type_, number).items()}


@functools.cache
def _sample(type_: str, number: int) -> Mapping[str, Any]:
    schema = json_schema(type_)
    value: dict[str, Any] = _value(schema, schema.get("$defs", {}), number)
    return value


@functools.cache
def _variants(type_: str) -> int:
    """How many samples cover every alternative type of a value; at least two, as an event's actor and version may be missing."""
    most = max((len(_options(each)) for each in _schemas(json_schema(type_))), default=1) if type_ in EVENTS else 1
    return max(2, most)


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict):
        yield schema
    for each in inner:
        yield from _schemas(each)


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The alternative types of a value. An integer comes first: it fits the most operators."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return sorted(options, key=lambda option: option.get("type") != "integer")


@functools.cache
def _open(type_: str) -> frozenset[str]:
    """The fields of a type that accept any value."""
    schema = json_schema(type_)
    defs = schema.get("$defs", {})
    return frozenset(name for name, inner in schema.get("properties", {}).items() if _is_open(inner, defs))


def _is_open(schema: dict[str, Any], defs: Mapping[str, Any]) -> bool:
    if "$ref" in schema:
        return _is_open(defs[schema["$ref"].rpartition("/")[2]], defs)
    if "anyOf" in schema:
        return any(_is_open(option, defs) for option in schema["anyOf"])
    match schema.get("type"):
        case "object":
            inner = schema.get("properties", {}).values()
            return not inner or any(_is_open(each, defs) for each in inner)
        case "array":
            return "items" not in schema or _is_open(schema["items"], defs)
        case None:
            return not schema.keys() & {"enum", "const"}
    return False


def _value(schema: dict[str, Any], defs: Mapping[str, Any], number: int) -> Any:
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rpartition("/")[2]], defs, number)
    if "anyOf" in schema:
        options = _options(schema)
        return _value(options[min(number, len(options) - 1)], defs, number)
    match schema.get("type"):
        case "object":
            return {name: _value(inner, defs, number) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema["items"], defs, number)] if "items" in schema else []
        case "integer" | "number" as kind:
            wanted = (
                min(LARGE_NUMBER, int(schema.get("maximum", LARGE_NUMBER)))
                if number
                else max(1, int(schema.get("minimum", 1)))
            )
            return wanted - 0.5 if kind == "number" and number else wanted
        case "boolean":
            return True
    return _PATTERNS.get(schema.get("pattern", ""), ("sample", "sample"))[min(number, 1)]
