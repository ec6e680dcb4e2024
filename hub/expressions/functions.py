"""Functions of ours that expressions may call, and the one that every expression has: `decimal`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel

from hub.config.strict_json import plain_decimal
from hub.errors import HubError, RejectedError
from hub.expressions.expression import Scope, running
from hub.expressions.reading import PathRead, Token, paths, tokens

_TYPES = {
    "string": cel.Type.STRING,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "bool": cel.Type.BOOL,
    "timestamp": cel.Type.TIMESTAMP,
    "map": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}


@dataclass(frozen=True)
class Function:
    """A function of ours. `parameters` has one entry per overload: CEL finds no overload whose parameter is of any type.

    `call` gets the context of the scope first, then the arguments. What it raises as HubError ends the evaluation with that error.
    """

    name: str
    parameters: tuple[tuple[str, ...], ...]
    result: str
    call: Callable[..., Any]

    def run(self, *arguments: Any) -> Any:
        """Call it. Whatever it raises is a HubError: what nobody foresaw is an error of the values that it was given."""
        try:
            return self.call(*arguments)
        except HubError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RejectedError("HUB-E3128", function=self.name, reason=reason) from error


def declare(function: Function) -> Any:
    """The function as CEL is told of it."""
    overloads = [
        cel.Overload(
            f"{function.name}_{'_'.join(parameters)}",
            return_type=_TYPES[function.result],
            parameters=[_TYPES[name] for name in parameters],
            impl=_guarded(function),
        )
        for parameters in function.parameters
    ]
    return cel.FunctionDecl(function.name, overloads)


def _guarded(function: Function) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        scope = running()
        try:
            return function.run(scope if function.call is _decimal else scope.context, *arguments)
        except HubError as error:
            scope.raised = error
            raise ValueError(error.code) from error

    return run


def _decimal(scope: Scope, number: str | int | float, path: str | None = None) -> str:
    """The number's text. A float has lost it: it is found again by path, else among the numbers of that value."""
    if isinstance(number, float):
        return _written(scope, number, path)
    try:
        return plain_decimal(str(number))
    except ValueError as error:
        raise RejectedError("HUB-E3126", value=str(number)[:60]) from error


def _written(scope: Scope, number: float, path: str | None) -> str:
    exact = scope.numbers.get(tuple(json.loads(path))) if path is not None else None
    if exact is not None:
        return plain_decimal(exact)
    texts = [plain_decimal(text) for text in scope.written(number)] if path is None else []
    if len(set(map(_value_of, texts))) > 1:
        raise RejectedError("HUB-E3127", value=" / ".join(texts[:3]))
    return texts[0] if texts else plain_decimal(repr(number))


def _value_of(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


_NUMBERS = ("string", "int", "double")
DECIMAL = Function(
    "decimal", (*((name,) for name in _NUMBERS), *((name, "string") for name in _NUMBERS)), "string", _decimal
)


def with_paths(text: str, names: frozenset[str]) -> str:
    """Give each `decimal(body.a.b)` its path as a second argument, so that it finds that very number's text.

    By its value alone it could not tell 12345678901234567.89 from 12345678901234567.90: as floats they are one.
    """
    found = tokens(text)
    reads = {path.at: path for path in paths(text, names)}
    made, done = [], 0
    for at, token in enumerate(found):
        path = _decimal_of(found, at, reads)
        if token.text == "decimal" and path is not None:
            exact = json.dumps([path.root, *path.parts], ensure_ascii=False)
            made += [text[done : path.end], ", ", json.dumps(exact, ensure_ascii=False)]
            done = path.end
    return "".join([*made, text[done:]])


def _decimal_of(found: list[Token], at: int, reads: Mapping[int, PathRead]) -> PathRead | None:
    """The path that is the whole argument of the call at this token, if it is one that needs no evaluation."""
    path = reads.get(found[at + 2].at) if at + 2 < len(found) and found[at + 1].text == "(" else None
    if path is None or any(isinstance(part, PathRead) for part in path.parts):
        return None
    after = next((token for token in found if token.at >= path.end), None)
    return path if after is not None and after.text == ")" else None
