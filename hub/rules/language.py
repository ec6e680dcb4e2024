"""The rule language: reads a rule's YAML into a Rule, and reports every mistake with its place.

    rule: won-deal-to-delivery            name, in small letters, digits and hyphens; part of every command's id
    renamed_from: won-deal                optional: its former name (or several, the oldest first); the ids still derive from it
    title: {zh: …, en: …}
    owner: sales-ops                      its maintainer: a department, a person or a team
    scope: {departments: [sales], mode: live}     optional; mode is live, shadow (logged, never executed) or off
    when: crm.opportunity.won             a type of event, or a list of them
    if: double(event.data.amount) > 1.0   optional CEL; may read `event` and `case`
    for each: {line: "${event.data.lines}", key: "${line.sku}"}      optional; `do` once for every item
    do:                                   commands in order; may also read the item and the `as:` names above
      - project.create: {as: project, in: pm, name: "…"}

`in:` names an instance of hub.yaml. `id: 2` keeps the id of an entry that was second before, `id: greeting` names a new one.
`"${project}"` is the earlier command's result, as a whole value only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from hub.config.expecting import KINDS, Expected, of_kind, of_pattern, same_in_both, text_form
from hub.config.strict_json import Json
from hub.config.validation import Strict, Titled, check, dotted, near, short, unknown_key, wrong
from hub.config.yaml_places import Located, Path
from hub.errors import LANGUAGES, FatalError, HubError
from hub.expressions.engine import Engine
from hub.expressions.expression import Condition, Expression
from hub.expressions.templates import Template
from hub.people import PeopleDirectory
from hub.rules.rule import CASE_NAMES, EVENT_NAMES, Argument, ForEach, Mode, Rule, RuleAction
from schemas.registry import COMMANDS, EVENTS

_ENTRY_KEYS = frozenset({"as", "in", "id"})
"""Keys of an entry of `do` that are not arguments of its command."""
RESERVED_KEYS = frozenset({"wait", "unless", "within", "approve"})
"""Keys that a later version may define."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED_NAMES = frozenset(
    {"event", "case", "key", "in", "as", "true", "false", "null", "body", "command", "response"}
)


@dataclass(frozen=True)
class World:
    """What rules are validated against. `fields` are the data fields that the home's own mappings set, by event type."""

    engine: Engine
    people: PeopleDirectory
    instances: Collection[str] | None = None
    """None: unknown, so that `in:` is not checked."""
    fields: Mapping[str, frozenset[str]] = field(default_factory=dict)
    any_type: bool = False
    """Whether a rule may wait for unknown event types: a rule from the log may be older or newer than this program."""


class _Scope(Strict):
    departments: tuple[str, ...] = ()
    mode: Mode = "live"


RuleName = Annotated[
    str,
    text_form(r"^[a-z][a-z0-9-]{0,99}$", "小写字母和连字符的名称", "a name in small letters and hyphens", "won-deal"),
]


class _Rule(Strict):
    rule: RuleName
    renamed_from: RuleName | tuple[RuleName, ...] = ()
    title: Titled
    owner: str
    scope: _Scope = _Scope()
    when: str | list[str]
    condition: Annotated[str | None, Field(alias="if")] = None
    for_each: Annotated[dict[str, str] | None, Field(alias="for each")] = None
    do: Annotated[list[dict[str, dict[str, Any]]], Field(min_length=1)]


def read_rule(located: Located, world: World) -> tuple[Rule | None, list[HubError]]:
    """The rule of a file, or None and every mistake in it. Never raises because of the file's content."""
    errors: list[HubError] = list(located.errors)
    if isinstance(located.value, dict):
        errors += [
            FatalError("HUB-E3160", place=located.key_place((key,)), key=key)
            for key in located.value
            if key in RESERVED_KEYS or key.split(" ")[0] in RESERVED_KEYS
        ]
    if errors:
        return None, errors
    parsed, mistakes = check(_Rule, located, (), located.file)
    if parsed is None:
        return None, list(mistakes)
    reader = _Reader(located, parsed, world)
    rule = reader.rule()
    return (rule if not reader.errors else None), reader.errors


def digest_of(value: Json) -> str:
    """A short digest of a file's content, independent of its layout."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


class _Reader:
    """Reads one rule; collects all mistakes instead of stopping at the first."""

    def __init__(self, located: Located, parsed: _Rule, world: World) -> None:
        self.located, self.parsed, self.world = located, parsed, world
        self.errors: list[HubError] = []
        self.names = {"event", "case"}
        self.promises: set[str] = set()

    def rule(self) -> Rule:
        parsed = self.parsed
        self._check_scope()
        when = self._when()
        condition = self._condition()
        for_each = self._for_each()
        requests = self._requests()
        read = [
            *([condition.expression] if condition else []),
            *([for_each.items, *(for_each.key.expressions if for_each.key else ())] if for_each else []),
            *(expression for request in requests for expression in expressions_of(request)),
        ]
        return Rule(
            name=parsed.rule,
            title=parsed.title.by_language,
            owner=parsed.owner,
            departments=parsed.scope.departments,
            mode=parsed.scope.mode,
            when=when,
            condition=condition,
            for_each=for_each,
            requests=requests,
            digest=digest_of(self.located.value),
            place=self.located.place(("rule",)),
            case_reads=tuple(path for expression in read for path in expression.reads if path.root == "case"),
            renamed_from=(parsed.renamed_from,) if isinstance(parsed.renamed_from, str) else parsed.renamed_from,
        )

    def _check_scope(self) -> None:
        for at, department in enumerate(self.parsed.scope.departments):
            known = self.world.people.departments
            if department not in known:
                place = self.located.place(("scope", "departments", at))
                self._wrong(FatalError("HUB-E3146", place=place, department=department, near=near(department, known)))

    def _when(self) -> tuple[str, ...]:
        is_list = isinstance(self.parsed.when, list)
        types = self.parsed.when if isinstance(self.parsed.when, list) else [self.parsed.when]
        known = {*EVENTS, *self.world.fields}
        for at, type_ in enumerate(types):
            if type_ not in known and not self.world.any_type:
                place = self.located.place(("when", at) if is_list else ("when",))
                self._wrong(FatalError("HUB-E3161", place=place, type=type_, near=near(type_, known)))
        return tuple(dict.fromkeys(types))

    def _condition(self) -> Condition | None:
        if self.parsed.condition is None:
            return None
        try:
            condition = self.world.engine.condition(self.parsed.condition, self.names, self.located.place(("if",)))
        except FatalError as error:
            self._wrong(error)
            return None
        self._check_paths(condition.expression)
        return condition

    def _for_each(self) -> ForEach | None:
        loop = self.parsed.for_each
        if loop is None:
            return None
        names = [name for name in loop if name != "key"]
        if len(names) != 1:
            self._wrong(wrong(self.located, ("for each",), EACH, loop))
            return None
        items = self._template(loop[names[0]], ("for each", names[0]))
        self._take_name(names[0], ("for each", names[0]))
        key = self._template(loop["key"], ("for each", "key")) if "key" in loop else None
        if items is None or (key is None and "key" in loop):
            return None
        if not isinstance(items.root, Expression):
            self._wrong(wrong(self.located, ("for each", names[0]), EXPRESSION, loop[names[0]]))
            return None
        return ForEach(names[0], items.root, key)

    def _requests(self) -> tuple[RuleAction, ...]:
        named = [entry.get("as") for step in self.parsed.do for entry in step.values()]
        defined: set[str] = set()
        self.promises = {name for name in named if isinstance(name, str)}
        made = list[RuleAction]()
        for at, step in enumerate(self.parsed.do):
            request = self._request(step, at, defined)
            if request is not None:
                self._take_slot(request, at, made)
                made.append(request)
                defined |= {request.name} if request.name else set()
        return tuple(made)

    def _take_slot(self, request: RuleAction, at: int, made: list[RuleAction]) -> None:
        """Refuse a duplicate id: two entries with the same id would become one command."""
        if any(other.slot == request.slot for other in made):
            shown = str(int(request.slot) + 1) if request.slot.isdigit() else request.slot
            self._wrong(FatalError("HUB-E3168", place=self.located.place(("do", at)), id=shown))

    def _request(self, step: dict[str, dict[str, Any]], at: int, defined: set[str]) -> RuleAction | None:
        path: Path = ("do", at)
        if len(step) != 1:
            self._wrong(wrong(self.located, path, ONE_COMMAND, ", ".join(step)))
            return None
        ((type_, given),) = step.items()
        path = (*path, type_)
        spec = COMMANDS.get(type_)
        if spec is None:
            place = self.located.key_place(path)
            self._wrong(FatalError("HUB-E3162", place=place, command=type_, near=near(type_, COMMANDS)))
            return None
        name = self._as(given, path, defined)
        instance = self._instance(given, path)
        self._check_arguments(spec.model, given, path)
        arguments = {
            key: argument
            for key, value in given.items()
            if key in spec.model.model_fields
            for argument in [self._argument(spec.model, key, value, (*path, key), defined)]
            if argument is not None
        }
        return RuleAction(type_, instance, name, arguments, self.located.key_place(path), self._slot(given, path, at))

    def _slot(self, given: dict[str, Any], path: Path, at: int) -> str:
        """The value of `id:`, a name or the entry's former position counted from 1; without one, its current position."""
        id_ = given.get("id", at + 1)
        if isinstance(id_, int) and not isinstance(id_, bool) and 0 < id_ < 1000:
            return str(id_ - 1)
        if isinstance(id_, str) and _NAME.fullmatch(id_):
            return id_
        self._wrong(wrong(self.located, (*path, "id"), "2 | greeting", id_))
        return str(at)

    def _as(self, given: dict[str, Any], path: Path, defined: set[str]) -> str | None:
        name = given.get("as")
        if name is None:
            return None
        if not isinstance(name, str) or name in defined:
            self._wrong(wrong(self.located, (*path, "as"), A_NAME, name))
            return None
        self._take_name(name, (*path, "as"))
        return name

    def _take_name(self, name: str, path: Path) -> None:
        if not _NAME.fullmatch(name) or name in _RESERVED_NAMES or name in self.names:
            self._wrong(FatalError("HUB-E3164", place=self.located.place(path), name=name))
        else:
            self.names.add(name)

    def _instance(self, given: dict[str, Any], path: Path) -> str:
        name = given.get("in")
        known = self.world.instances
        if name is None:
            self._wrong(FatalError("HUB-E3007", place=self.located.key_place(path), where=dotted(path), key="in"))
        elif not isinstance(name, str) or (known is not None and name not in known):
            place = self.located.place((*path, "in"))
            self._wrong(FatalError("HUB-E3165", place=place, instance=name, near=near(str(name), known or ())))
        return str(name)

    def _check_arguments(self, model: type[BaseModel], given: dict[str, Any], path: Path) -> None:
        fields = model.model_fields
        for key in given:
            if key not in fields and key not in _ENTRY_KEYS:
                self._wrong(unknown_key(self.located, (*path, key), {*fields, *_ENTRY_KEYS}, dotted(path)))
        for key, info in fields.items():
            if info.is_required() and key not in given:
                place = self.located.key_place(path)
                self._wrong(FatalError("HUB-E3007", place=place, where=dotted(path), key=key))

    def _argument(self, model: type[BaseModel], key: str, value: Any, path: Path, defined: set[str]) -> Argument | None:
        template = self._template(value, path)
        if template is None:
            return None
        self._check_promises(template, defined)
        info = model.model_fields[key]
        wanted: Any = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        accepts: TypeAdapter[Any] = TypeAdapter(wanted)
        expected = _shape(accepts)
        if not template.expressions:
            try:
                accepts.validate_python(value)
            except ValidationError:
                self._wrong(wrong(self.located, path, expected, value))
                return None
        return Argument(template, accepts, expected.expected, self.located.place(path))

    def _check_promises(self, template: Template, defined: set[str]) -> None:
        """Check that a promise is a whole value: its text is known only once the earlier command has ended."""
        for expression in template.expressions:
            used = {path.root for path in expression.reads} & self.promises
            for name in used:
                if name not in defined:
                    seen = {"expression": expression.text, "name": name, "near": near(name, {*self.names} - used)}
                    self._wrong(FatalError("HUB-E3114", place=expression.place, **seen))
                elif expression.text.strip() != name or expression in template.joined:
                    self._wrong(FatalError("HUB-E3163", place=expression.place, expression=expression.text, name=name))

    def _template(self, value: Any, path: Path) -> Template | None:
        try:
            template = self.world.engine.template(value, self.names | self.promises, self.located.below(path))
        except FatalError as error:
            self._wrong(error)
            return None
        for expression in template.expressions:
            self._check_paths(expression)
        return template

    def _check_paths(self, expression: Expression) -> None:
        """Refuse names that no event or case has, such as `event.dta`."""
        for path in expression.reads:
            known = {"event": EVENT_NAMES, "case": CASE_NAMES}.get(path.root)
            first = path.parts[0] if path.parts else None
            if known and isinstance(first, str) and first not in known:
                seen = {"expression": expression.text, "missing": f"{path.root}.{first}", "near": near(first, known)}
                self._wrong(FatalError("HUB-E3120", place=expression.at(path.spots[0]), **seen))

    def _wrong(self, error: HubError) -> None:
        error.seen.setdefault("rule", self.parsed.rule)
        self.errors.append(error)


def expressions_of(request: RuleAction) -> list[Expression]:
    """Every expression of a command's arguments."""
    return [expression for argument in request.arguments.values() for expression in argument.template.expressions]


def _shape(accepts: TypeAdapter[Any]) -> Expected:
    """The shape that an argument must have."""
    schema = accepts.json_schema()
    options = [option for option in (schema, *schema.get("anyOf", ())) if option.get("type", "null") != "null"]
    shapes = [
        of_pattern(option["pattern"]) if "pattern" in option else of_kind(*KINDS[option["type"]]) for option in options
    ]
    if not shapes:
        return same_in_both(short(schema))
    zh, en = (dict.fromkeys(shape.expected[language] for shape in shapes) for language in LANGUAGES)
    return of_kind(" 或 ".join(zh), " or ".join(en))


EACH = of_kind("一个列表和它的 key", "a list and its key", '{line: "${event.data.lines}", key: "${line.sku}"}')
EXPRESSION = of_kind("一个表达式", "one expression", '"${event.data.lines}"')
ONE_COMMAND = of_kind("每项一条命令", "one command an entry", "- task.create: {…}")
A_NAME = of_kind("没有用过的名称", "a name that was not used before", "project")
