"""Expressions that need no evaluation: a path, one compared to a text or a number, or a function of ours on paths and literals.

Most are no more than that.

What a shortcut answers is what CEL would have answered; whatever is not plain to see (a missing field, another type, a huge text)
it leaves to CEL, so that there is one place where expressions fail.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from hub.config.strict_json import Json
from hub.expressions.expression import MAX_RESULT, Scope, Shortcut
from hub.expressions.functions import DECIMAL, Function
from hub.expressions.reading import PathRead, Token, tokens
from schemas.envelope import promised

Fetch = Callable[[Mapping[str, Json]], Json]

_KINDS = {"string": str, "int": int}


def shortcut(text: str, reads: Sequence[PathRead], functions: Iterable[Function]) -> Shortcut | None:
    """The short way to the value of an expression, if there is one."""
    found = tokens(text)
    if reads and (reads[0].at, reads[0].end) == (0, len(text)):
        path = _path(reads[0])
        return None if path is None else lambda scope: _shown(path(scope.values))
    if len(reads) == 1 and (measured := _MEASURED.match(text, reads[0].end)):
        return _measured(text, measured, reads[0])
    if len(found) > 3 and reads and [token.text for token in found[-3:-1]] == ["=", "="]:
        return _compared(text, found, reads)
    if len(found) > 3 and len(reads) == 1 and found[0].text == DECIMAL.name:
        return _decimal(text, found, reads[0])
    known = {function.name: function for function in functions if function.result == "string"}
    if len(found) < 4 or found[0].text not in known or (found[1].text, found[-1].text) != ("(", ")"):
        return None
    arguments = _arguments(found[2:-1], {read.at: read for read in reads})
    return None if arguments is None else _call(known[found[0].text], arguments)


def _compared(text: str, found: Sequence[Token], reads: Sequence[PathRead]) -> Shortcut | None:
    """`path == "text"`, when the value is a text as well."""
    (read, *more), wanted = reads, _literal(found[-1])
    path = _path(read)
    if more or read.at or text[read.end : found[-1].at].strip() != "==" or path is None or wanted is None:
        return None
    literal = wanted({})
    if not isinstance(literal, str):
        return None

    def run(scope: Scope) -> Json:
        value = path(scope.values)
        return value == literal if isinstance(value, str) else None

    return run


_MEASURED = re.compile(r"(\)?)\s*(<=|>=|<|>)\s*(-?[0-9]{1,15}(?:\.[0-9]{1,15})?)\Z")
_WRITTEN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _measured(text: str, found: re.Match[str], read: PathRead) -> Shortcut | None:
    """`path >= 3`, or `double(path) >= 3.0`, when the value is a number of that type; `double` also takes one written as text."""
    path, (closed, sign, written) = _path(read), found.groups()
    before = text[: read.at]
    if path is None or before != ("double(" if closed else ""):
        return None
    holds, given = _COMPARE[sign], float if "." in written else int
    limit = given(written)

    def run(scope: Scope) -> Json:
        value = path(scope.values)
        return bool(holds(value, limit)) if type(value) is given else None

    def run_double(scope: Scope) -> Json:
        value = path(scope.values)
        if type(value) is str and _WRITTEN.fullmatch(value):
            return bool(holds(float(value), limit))
        return bool(holds(value, limit)) if type(value) is float else None

    if not closed:
        return run
    return run_double if given is float else None


def _decimal(text: str, found: Sequence[Token], read: PathRead) -> Shortcut | None:
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
    taken = {tuple(_KINDS.get(name) for name in parameters) for parameters in function.parameters}
    call = function.run

    def run(scope: Scope) -> Json:
        values = scope.values
        given = [argument(values) for argument in arguments]
        return call(scope.context, *given) if tuple(map(type, given)) in taken else None

    return run


def _arguments(found: Sequence[Token], reads: Mapping[int, PathRead]) -> list[Fetch] | None:
    """How to come by each argument; None when one is neither a path of names nor a plain literal."""
    made, at = list[Fetch](), 0
    while at < len(found):
        read = reads.get(found[at].at)
        fetch = _literal(found[at]) if read is None else _path(read)
        if fetch is None:
            return None
        made.append(fetch)
        end = len(found[at].text) + found[at].at if read is None else read.end
        at = next((n for n in range(at, len(found)) if found[n].at >= end), len(found))
        if at < len(found) and (found[at].text != "," or at + 1 == len(found)):
            return None
        at += 1
    return made


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


def _shown(value: Json) -> Json:
    """A text or a promise; None for what CEL has to look at."""
    if isinstance(value, str):
        return value if len(value) <= MAX_RESULT else None
    return dict(value) if promised(value) else None
