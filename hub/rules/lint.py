"""What a rule that can be read will get wrong: fields that no event has, roles that nobody holds, values of the wrong type.

CEL cannot know the fields of an event when it compiles, so each rule is tried on samples of every type that it waits for. What
fails on all of them would park every event: an error. What fails on some is a warning.
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
from hub.people import PREFIX, PeopleDirectory, person_fields
from hub.rules.language import World, expressions_of
from hub.rules.rule import Rule, RuleAction
from hub.rules.rule_set import RuleSet
from schemas.registry import COMMANDS, EVENTS, json_schema

TYPED = {"HUB-E3121", "HUB-E3122", "HUB-E3125"}
"""Failures that come of a value's type: a real event's value has the sample's."""
NAMED = {"HUB-E3140": "role", "HUB-E3142": "person"}
"""Failures that come of a name: sure when the rule itself writes it."""
DOUBTFUL = {"HUB-E3126", *NAMED}
"""Failures that another event may not have."""
OF_PEOPLE = {*NAMED, "HUB-E3146"}
"""Failures that say nothing of a rule while people.yaml itself cannot be read."""
_FIELD = re.compile(r"event\.data(?:\.|\[\")(\w+)")
LARGE = 10**8
"""What a rule may call large."""
_PATTERNS = {
    r"^[A-Z]{3}$": ("CNY", "CNY"),
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$": ("2026-11-20", "2026-11-20"),
    r"^-?[0-9]{1,20}(\.[0-9]{1,10})?$": ("1000.00", f"{LARGE}.00"),
}


@dataclass
class Lint:
    """What is wrong with rules: `errors` park every event, `warnings` may park some."""

    errors: list[HubError] = field(default_factory=list)
    warnings: list[HubError] = field(default_factory=list)


def lint(rules: RuleSet, world: World) -> Lint:
    """Every failure, in the order of rules and places; the same one is told once for each place."""
    found = Lint()
    for rule in rules.rules:
        tried = [_outcome(rule, attempt, world) for attempt in _attempts(rule)]
        errors = [FatalError(e.code, place=e.place, **e.seen) for e, sure in tried if e is not None and sure]
        errors += _unknown_people(rule, world.people)
        unknown = [error for error in _unknown_fields(rule, world) if not _tells_of(errors, error)]
        warnings = [error for error, sure in tried if error is not None and not sure]
        found.errors += _each_once(errors)
        found.warnings += _each_once(
            [*_full_width(rule), *unknown, *(error for error in warnings if not _tells_of([error], *unknown))]
        )
    return found


def _full_width(rule: Rule) -> Iterator[HubError]:
    """Braces and dollars of an input method: they are no `${…}`, and hardly meant as text."""
    arguments = [argument for request in rule.requests for argument in request.arguments.values()]
    for argument in arguments:
        for text in literals(argument.template.root):
            for meant in FULL_WIDTH.finditer(text):
                seen = {
                    "text": meant[0],
                    "meant": meant[0].translate(str.maketrans("＄｛｝", "${}")),
                    "rule": rule.name,
                }
                yield FatalError("HUB-W3117", place=argument.place, **seen)


def _each_once(errors: Iterable[HubError]) -> Iterable[HubError]:
    return {(error.code, error.place): error for error in errors}.values()


def _tells_of(failures: Iterable[HubError], *unknown: HubError) -> bool:
    """Whether one of the failures is that a field is missing which is known to be unknown."""
    fields = {f"event.data.{error.seen['field']}" for error in unknown}
    return any(error.seen.get("missing") in fields for error in failures)


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


@dataclass(frozen=True)
class Attempt:
    """One part of a rule that can be evaluated with an event, its case and, where it is for each, an item of it."""

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
    """The same for the first item; nothing where the sample has none."""
    each = rule.for_each
    assert each is not None  # the caller has looked

    def first(scope: Scope) -> object:
        try:
            items = each.items.value(scope)
        except RejectedError:
            return None
        return run(scope.also({each.name: items[0]})) if isinstance(items, list) and items else None

    return first


def _outcome(rule: Rule, attempt: Attempt, world: World) -> tuple[HubError | None, bool]:
    """The first failure that counts, and whether it is sure: every sample on which the rule acts has one, whatever its type."""
    scopes = [each for type_ in rule.when for each in _samples(type_, world)]
    failures = [_failure(attempt, scope, unsure) for scope, unsure in scopes]
    acting = [
        error for error, (scope, _) in zip(failures, scopes, strict=True) if attempt.is_condition or _acts(rule, scope)
    ]
    first = next((error for error in (*acting, *failures) if error is not None), None)
    if first is not None:
        first.seen.setdefault("rule", rule.name)
    always = bool(acting) and all(error is not None and error.code not in DOUBTFUL for error in acting)
    return first, always or all(_is_written(error) for error in failures)


def _acts(rule: Rule, scope: Scope) -> bool:
    try:
        return rule.condition is None or rule.condition.test(scope)
    except RejectedError:
        return False


def _failure(attempt: Attempt, scope: Scope, unsure: Collection[str]) -> RejectedError | None:
    """Why it fails on a sample, where a real event fails, too; `unsure` are the fields whose values are not known."""
    try:
        attempt.run(scope)
    except RejectedError as error:
        lacking = _FIELD.match(str(error.seen.get("missing")))
        if not any(each.reads for each in attempt.expressions):
            return error
        if error.code == "HUB-E3120":
            return error if lacking and lacking[1] not in unsure else None
        if error.code in TYPED:
            mistyped = error.code != "HUB-E3121" or error.seen.get("kind") == "types"
            return error if mistyped and not attempt.reads(unsure) else None
        return error if error.code in DOUBTFUL and not attempt.reads(unsure) else None
    return None


def _is_written(error: HubError | None) -> bool:
    """Whether the rule writes the name that nobody has: no event can make it another."""
    name = error.seen.get(NAMED[error.code]) if error is not None and error.code in NAMED else None
    return (
        name is not None
        and re.search(f"[\"']{re.escape(str(name))}[\"']", str(error and error.seen.get("expression"))) is not None
    )


def _unknown_people(rule: Rule, people: PeopleDirectory) -> Iterator[FatalError]:
    """People that the rule itself writes as `person/…` for a command, whom nobody knows."""
    for request in rule.requests:
        for argument in request.arguments.values():
            ref, id_ = argument.template.root, str(argument.template.root).removeprefix(PREFIX)
            if isinstance(ref, str) and ref.startswith(PREFIX) and id_ not in people.people:
                seen = {"person": ref, "near": near(id_, people.people), "rule": rule.name}
                yield FatalError("HUB-E3142", place=argument.place, **seen)


def without_account(rules: RuleSet, people: PeopleDirectory, instances: Collection[str]) -> Iterator[HubError]:
    """People that a rule itself names for a system, of these, where they have no account."""
    for request in (request for rule in rules.rules for request in rule.requests if request.instance in instances):
        for ref in dict.fromkeys(_named(request, people)):
            id_ = ref.removeprefix(PREFIX)
            if id_ in people.people and request.instance not in people.people[id_].accounts:
                yield FatalError("HUB-W3143", place=request.place, person=ref, instance=request.instance, id=id_)


_ROLE = re.compile(r"""\s*role\(\s*(["'])([^"'\\]+)\1\s*\)\s*""")


def _named(request: RuleAction, people: PeopleDirectory) -> Iterator[str]:
    """Everybody that a command's arguments may name by the rule's own words."""
    for name in person_fields(COMMANDS[request.type].model) & set(request.arguments):
        root = request.arguments[name].template.root
        role = _ROLE.fullmatch(root.text) if isinstance(root, Expression) else None
        if role is not None:
            yield from people.holders(role[2])
        elif isinstance(root, str) and root.startswith(PREFIX):
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
    """Events of a type as they may come, each with the fields whose values are not known: of the home's own, and of any type."""
    own = set(world.fields.get(type_, ()))
    unsure = own if type_ not in EVENTS else (own - set(EVENTS[type_].model.model_fields)) | _open(type_)
    subject = f"{type_.split('.')[1] if type_.count('.') else type_}/sample/1"
    for number in range(_variants(type_)):
        data = {**dict.fromkeys(own, "sample"), **(sample(type_, world, number) if type_ in EVENTS else {})}
        time, someone = "2026-11-20T02:00:00.000000Z", None if number == 0 else PREFIX + "sample"
        event = {
            "id": "sample", "type": type_, "subject": subject, "version": "1" if number == 0 else None, "time": time,
            "recordedtime": time, "source": "/connectors/sample", "case": subject, "actor": someone, "data": data,
        }  # fmt: skip
        case = {"id": subject, "opened_by": subject, "entities": {subject: {"kind": "", "stage": "", "data": data}}}
        yield world.engine.scope({"event": event, "case": case}, subject), unsure


def sample(type_: str, world: World, number: int = 0) -> dict[str, Any]:
    """Data as an event of this type may have it: every field there, none of it empty. `number` chooses among types of a value."""
    someone = PREFIX + next(iter(world.people.people), "sample")
    people = person_fields(EVENTS[type_].model)
    return {name: someone if name in people else value for name, value in _sample(type_, number).items()}


@functools.cache
def _sample(type_: str, number: int) -> Mapping[str, Any]:
    schema = json_schema(type_)
    value: dict[str, Any] = _value(schema, schema.get("$defs", {}), number)
    return value


@functools.cache
def _variants(type_: str) -> int:
    """How many samples show every type that a value may have; two at least, as an event's actor and version may be missing."""
    most = max((len(_options(each)) for each in _schemas(json_schema(type_))), default=1) if type_ in EVENTS else 1
    return max(2, most)


def _schemas(schema: Any) -> Iterator[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    if isinstance(schema, dict):
        yield schema
    for each in inner:
        yield from _schemas(each)


def _options(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The types that a value may have. A whole number comes first: it fits the most operators."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return sorted(options, key=lambda option: option.get("type") != "integer")


@functools.cache
def _open(type_: str) -> frozenset[str]:
    """The fields of a type in which anything may stand."""
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
            wanted = min(LARGE, int(schema.get("maximum", LARGE))) if number else max(1, int(schema.get("minimum", 1)))
            return wanted - 0.5 if kind == "number" and number else wanted
        case "boolean":
            return True
    return _PATTERNS.get(schema.get("pattern", ""), ("sample", "sample"))[min(number, 1)]
