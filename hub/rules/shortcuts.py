"""Expressions that need no evaluation: a path, or one of our functions called on paths and literals. Most are no more than that.

What a shortcut answers is what CEL would have answered; whatever is not plain to see (a missing field, another type, a huge text)
it leaves to CEL, so that there is one place where expressions fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hub.rules.documents import Json
from hub.rules.evaluation import MAX_RESULT, Shortcut
from hub.rules.functions import Function
from hub.rules.reading import PathRead, Token, tokens
from schemas.event import promised

Fetch = Callable[[Mapping[str, Json]], Json]

_KINDS = {str: "string", int: "int"}


def shortcut(text: str, reads: Sequence[PathRead], functions: Iterable[Function]) -> Shortcut | None:
    """The short way to the value of an expression, if there is one."""
    found = tokens(text)
    if reads and (reads[0].at, reads[0].end) == (0, len(text)):
        path = _path(reads[0])
        return None if path is None else lambda values, _context: _shown(path(values))
    known = {function.name: function for function in functions if function.result == "string"}
    if len(found) < 4 or found[0].text not in known or (found[1].text, found[-1].text) != ("(", ")"):
        return None
    arguments = _arguments(found[2:-1], {read.at: read for read in reads})
    return None if arguments is None else _call(known[found[0].text], arguments)


def _call(function: Function, arguments: Sequence[Fetch]) -> Shortcut:
    def run(values: Mapping[str, Json], context: Any) -> Json:
        given = [argument(values) for argument in arguments]
        if tuple(_KINDS.get(type(value)) for value in given) not in function.parameters:
            return None
        return function.call(context, *given)

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
        here: Any = values
        for name in names:
            if not isinstance(here, dict) or name not in here:
                return None
            here = here[name]
        return here

    return fetch


def _shown(value: Json) -> Json:
    """A text or a promise; None for what CEL has to look at."""
    if isinstance(value, str):
        return value if len(value) <= MAX_RESULT else None
    return dict(value) if promised(value) else None
