"""The engine: CEL expressions and texts with `${…}`, compiled once with exact places for what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cel_expr_python import cel

from hub.config.strict_json import Document, Json, Path, is_whole
from hub.config.validation import near
from hub.errors import FatalError, Place
from hub.expressions.complaints import USAGE, advice, in_words, usage, width
from hub.expressions.cost import effort
from hub.expressions.expression import Condition, Expression, Scope, within
from hub.expressions.functions import DECIMAL, Function, declare, with_paths
from hub.expressions.reading import paths, tokens
from hub.expressions.shortcuts import shortcut
from hub.expressions.templates import Template, compiled

MAX_TEXT = 2048
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
        """Make values ready to be read. They must be plain JSON values or Documents, and must not change while it is used."""
        numbers: dict[Path, str] = {}
        for name, value in values.items():
            if isinstance(value, Document):
                numbers |= {(name, *path): text for path, text in value.numbers.items()}
        plain = {name: value.value if isinstance(value, Document) else value for name, value in values.items()}
        return Scope(plain, context, numbers)

    def expression(self, text: str, names: Iterable[str], place: Place) -> Expression:
        """Compile; raises FatalError with the exact place for a text that is no expression, too long, or names the unknown."""
        known = frozenset(names)
        if len(text) > MAX_TEXT:
            raise FatalError("HUB-E3111", place=place, characters=len(text), most=MAX_TEXT)
        if not is_whole(text):
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
        """Compile what must be true or false; raises FatalError also when it can be neither."""
        compiled = self.expression(text, names, place)
        result = compiled._compiled.return_type()
        if result != cel.Type.BOOL and result != cel.Type.DYN:
            raise FatalError("HUB-E3112", place=place, expression=text, type=result.name().lower())
        return Condition(compiled)

    def template(self, value: Any, names: Iterable[str], place_of: Callable[[Path], Place]) -> Template:
        """Compile a value as YAML gave it, its texts with `${…}` in them; raises FatalError with place.

        `place_of` tells where the value at a path below it stands: for a text, the place of its first character.
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
    found = re.search(r"<input>:(\d+):(\d+): (.*?)(?:\n \||\nERROR| \[|$)", reason, re.DOTALL)
    line, column, said = (int(found[1]), int(found[2]), found[3]) if found else (1, 1, reason)
    offset = sum(len(row) + 1 for row in text.split("\n")[: line - 1]) + column - 1
    said = re.sub(r", expecting \{.*\}$| expecting \{.*\}$", "", said)
    called = re.match(r"(?:undeclared reference to|found no matching overload for) '([^'.]+)", said)
    name = called[1] if called else ""
    # CEL points at the end of such a name; its start is what a reader looks for.
    start = next((token.at for token in tokens(text) if token.text == name), offset)
    if name in USAGE:
        return FatalError("HUB-E3116", place=within(place, text, start), expression=text, name=name, usage=usage(name))
    if called and said.startswith("undeclared"):
        seen = {"expression": text, "name": name, "near": near(name, {*names, *FUNCTIONS})}
        return FatalError("HUB-E3114", place=within(place, text, start), **seen)
    rows = text.split("\n")
    row = rows[line - 1] if line <= len(rows) else ""
    pointed = f"{row}\n{'.' * width(row[: column - 1])}^"
    told = {"expression": text, "reason": in_words(said), "pointed": pointed, "advice": advice(said)}
    return FatalError("HUB-E3110", place=within(place, text, offset), **told)
