"""The expression engine: compiles CEL expressions and templates with `${…}` once, with the exact place of each mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cel_expr_python import cel

from hub.config.strict_json import Document, Json, Path, is_storable
from hub.config.validation import near
from hub.errors import FatalError, Place
from hub.expressions.complaints import USAGE, advice, translated, usage, width
from hub.expressions.cost import effort
from hub.expressions.expression import Condition, Expression, Scope, place_within
from hub.expressions.functions import DECIMAL, Function, declare, with_paths
from hub.expressions.reading import paths, tokens
from hub.expressions.shortcuts import shortcut
from hub.expressions.templates import Template, compiled

MAX_TEXT_CHARS = 2048
"""Characters of one expression."""

FUNCTIONS = frozenset(
    {
        *(
            "decimal",
            "workdays",
            "role",
            "person",
            "string",
            "int",
            "double",
            "bool",
            "timestamp",
            "duration",
            "size",
            "has",
        ),
        *("matches", "contains", "startsWith", "endsWith", "all", "exists", "exists_one", "map", "filter"),
    }
)
"""Names that an expression may call."""


class Engine:
    """Compiles expressions. One engine serves many threads; a scope belongs to one."""

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._ours = tuple(functions)
        self._functions = [declare(function) for function in (DECIMAL, *self._ours)]
        self._envs: dict[frozenset[str], Any] = {}

    def scope(self, values: Mapping[str, Json | Document], context: Any = None) -> Scope:
        """A scope of these values: plain JSON values or Documents, which must not change while the scope is in use."""
        numbers: dict[Path, str] = {}
        for name, value in values.items():
            if isinstance(value, Document):
                numbers |= {(name, *path): text for path, text in value.numbers.items()}
        plain = {name: value.value if isinstance(value, Document) else value for name, value in values.items()}
        return Scope(plain, context, numbers)

    def expression(self, text: str, names: Iterable[str], place: Place) -> Expression:
        """Compile; raises FatalError with the exact place for a text that is no expression, too long, or has an unknown name."""
        known = frozenset(names)
        if len(text) > MAX_TEXT_CHARS:
            raise FatalError("HUB-E3111", place=place, characters=len(text), most=MAX_TEXT_CHARS)
        if not is_storable(text):
            seen = {"expression": ascii(text), "reason": "NUL, \\ud800…", "pointed": "", "advice": advice("")}
            raise FatalError("HUB-E3110", place=place, **seen)
        env = self._env(known)
        self._compile(env, text, place, known)
        reads = paths(text, known)
        estimated = effort(text)
        if estimated.unbounded:
            raise FatalError("HUB-E3113", place=place, expression=text)
        short = shortcut(text, reads, self._ours)
        return Expression(text, place, reads, env, env.compile(with_paths(text, known)), estimated, short)

    def condition(self, text: str, names: Iterable[str], place: Place) -> Condition:
        """Compile a condition; raises FatalError also when its type can be neither bool nor dynamic."""
        compiled = self.expression(text, names, place)
        result = compiled._compiled.return_type()
        if result != cel.Type.BOOL and result != cel.Type.DYN:
            raise FatalError("HUB-E3112", place=place, expression=text, type=result.name().lower())
        return Condition(compiled)

    def template(self, value: Any, names: Iterable[str], place_of: Callable[[Path], Place]) -> Template:
        """Compile a YAML value and the `${…}` in its texts; raises FatalError with place.

        `place_of` gives the place of the value at a path below it: for a text, the place of its first character.
        """
        known = frozenset(names)
        return compiled(value, place_of, lambda text, place: self.expression(text, known, place))

    def _env(self, names: frozenset[str]) -> Any:
        env = self._envs.get(names)
        if env is None:
            env = cel.NewEnv(variables=dict.fromkeys(sorted(names), cel.Type.DYN), functions=self._functions)
            self._envs[names] = env
        return env

    def _compile(self, env: Any, text: str, place: Place, names: frozenset[str]) -> None:
        try:
            env.compile(text)
        except RuntimeError as error:
            raise _compile_error(str(error), text, place, names) from error


def _compile_error(reason: str, text: str, place: Place, names: frozenset[str]) -> FatalError:
    """CEL's own message, with its caret; its column is moved into the YAML file."""
    match = re.search(r"<input>:(\d+):(\d+): (.*?)(?:\n \||\nERROR| \[|$)", reason, re.DOTALL)
    line, column, message = (int(match[1]), int(match[2]), match[3]) if match else (1, 1, reason)
    offset = sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1
    message = re.sub(r", expecting \{.*\}$| expecting \{.*\}$", "", message)
    called = re.match(r"(?:undeclared reference to|found no matching overload for) '([^'.]+)", message)
    name = called[1] if called else ""
    # CEL points at the end of such a name; a reader looks for its start.
    start = next((token.at for token in tokens(text) if token.text == name), offset)
    if name in USAGE:
        return FatalError(
            "HUB-E3116", place=place_within(place, text, start), expression=text, name=name, usage=usage(name)
        )
    if called and message.startswith("undeclared"):
        seen = {"expression": text, "name": name, "near": near(name, {*names, *FUNCTIONS})}
        return FatalError("HUB-E3114", place=place_within(place, text, start), **seen)
    rows = text.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    pointed = f"{row}\n{'.' * width(row[: column - 1])}^"
    facts = {"expression": text, "reason": translated(message), "pointed": pointed, "advice": advice(message)}
    return FatalError("HUB-E3110", place=place_within(place, text, offset), **facts)
