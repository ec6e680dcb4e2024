"""Fast path for simple expressions: a path, a path compared to a text or number, or a hub function of paths and literals.

Most expressions are of these forms. A shortcut returns what CEL would return; it leaves every other case (a missing field, another
type, a huge text) to CEL, so that errors of expressions have one source.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from hub.config.strict_json import Json
from hub.expressions.expression import MAX_RESULT_CHARS, Scope, Shortcut
from hub.expressions.functions import DECIMAL, Function
from hub.expressions.reading import PathRead, Token, tokens
from schemas.envelope import promised

Fetch = Callable[[Mapping[str, Json]], Json]

_KINDS = {"string": str, "int": int}


def shortcut(text: str, reads: Sequence[PathRead], functions: Iterable[Function]) -> Shortcut | None:
    """The shortcut of an expression, None if it has none."""
    parsed = tokens(text)
    if reads and (reads[0].at, reads[0].end) == (0, len(text)):
        path = _path(reads[0])
        return None if path is None else lambda scope: _checked(path(scope.values))
    if len(reads) == 1 and (comparison := _COMPARISON.match(text, reads[0].end)):
        return _number_comparison(text, comparison, reads[0])
    if len(parsed) > 3 and reads and [token.text for token in parsed[-3:-1]] == ["=", "="]:
        return _text_equality(text, parsed, reads)
    if len(parsed) > 3 and len(reads) == 1 and parsed[0].text == DECIMAL.name:
        return _decimal(text, reads[0])
    known = {function.name: function for function in functions if function.result == "string"}
    if len(parsed) < 4 or parsed[0].text not in known or (parsed[1].text, parsed[-1].text) != ("(", ")"):
        return None
    arguments = _arguments(parsed[2:-1], {read.at: read for read in reads})
    return None if arguments is None else _call(known[parsed[0].text], arguments)


def _text_equality(text: str, parsed: Sequence[Token], reads: Sequence[PathRead]) -> Shortcut | None:
    """`path == "text"`, for values that are texts, too."""
    (read, *more), fetch_literal = reads, _literal(parsed[-1])
    path = _path(read)
    if more or read.at or text[read.end : parsed[-1].at].strip() != "==" or path is None or fetch_literal is None:
        return None
    literal = fetch_literal({})
    if not isinstance(literal, str):
        return None

    def run(scope: Scope) -> Json:
        value = path(scope.values)
        return value == literal if isinstance(value, str) else None

    return run


_COMPARISON = re.compile(r"(\)?)\s*(<=|>=|<|>)\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\Z")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _number_comparison(text: str, match: re.Match[str], read: PathRead) -> Shortcut | None:
    """`path >= 3` or `double(path) >= 3.0`, for numbers of the literal's type; `double` also accepts a number as text."""
    path, (closed, sign, number) = _path(read), match.groups()
    before = text[: read.at]
    if path is None or before != ("double(" if closed else ""):
        return None
    compare, type_ = _OPERATORS[sign], float if "." in number else int
    limit = type_(number)

    def run(scope: Scope) -> Json:
        value = path(scope.values)
        return bool(compare(value, limit)) if type(value) is type_ else None

    def run_double(scope: Scope) -> Json:
        value = path(scope.values)
        if type(value) is str and _NUMBER.fullmatch(value):
            return bool(compare(float(value), limit))
        return bool(compare(value, limit)) if type(value) is float else None

    if not closed:
        return run
    return run_double if type_ is float else None


def _decimal(text: str, read: PathRead) -> Shortcut | None:
    """`decimal(path)`."""
    path, around = _path(read), (text[: read.at], text[read.end :])
    if path is None or around != (f"{DECIMAL.name}(", ")"):
        return None
    exact = json.dumps([read.root, *read.parts])

    def run(scope: Scope) -> Json:
        value = path(scope.values)
        return DECIMAL.run(scope, value, exact) if type(value) in (str, int, float) else None

    return run


def _call(function: Function, arguments: Sequence[Fetch]) -> Shortcut:
    overloads = {tuple(_KINDS.get(name) for name in parameters) for parameters in function.parameters}
    call = function.run

    def run(scope: Scope) -> Json:
        values = scope.values
        fetched = [argument(values) for argument in arguments]
        return call(scope.context, *fetched) if tuple(map(type, fetched)) in overloads else None

    return run


def _arguments(parsed: Sequence[Token], reads: Mapping[int, PathRead]) -> list[Fetch] | None:
    """A fetch function per argument; None when one is neither a path of names nor a plain literal."""
    arguments, at = list[Fetch](), 0
    while at < len(parsed):
        read = reads.get(parsed[at].at)
        fetch = _literal(parsed[at]) if read is None else _path(read)
        if fetch is None:
            return None
        arguments.append(fetch)
        end = len(parsed[at].text) + parsed[at].at if read is None else read.end
        at = next((n for n in range(at, len(parsed)) if parsed[n].at >= end), len(parsed))
        if at < len(parsed) and (parsed[at].text != "," or at + 1 == len(parsed)):
            return None
        at += 1
    return arguments


def _literal(token: Token) -> Fetch | None:
    if token.kind == "number" and token.text.isdigit() and len(token.text) < 18:
        number = int(token.text)
        return lambda values: number
    plain = token.kind == "text" and token.text[0] in "\"'" and "\\" not in token.text and token.text[:3] not in _LONG
    text = token.text[1:-1]
    return (lambda values: text) if plain else None


_LONG = ("'''", '"""')


def _path(read: PathRead) -> Fetch | None:
    if not all(isinstance(part, str) for part in read.parts):
        return None
    names = (read.root, *map(str, read.parts))

    def fetch(values: Mapping[str, Json]) -> Json:
        try:
            return functools.reduce(operator.getitem, names, values)
        except (KeyError, TypeError):
            return None

    return fetch


def _checked(value: Json) -> Json:
    """A text or a promise; None for every value that CEL must check."""
    if isinstance(value, str):
        return value if len(value) <= MAX_RESULT_CHARS else None
    return dict(value) if promised(value) else None
