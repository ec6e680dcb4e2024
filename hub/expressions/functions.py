"""Hub functions for expressions, and the one that every expression has: `decimal`."""

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
    """A hub function. `parameters` has one entry per overload: CEL has no overload for parameters of any type.

    `call` gets the scope's context, then the arguments. A HubError that it raises ends the evaluation with that error.
    """

    name: str
    parameters: tuple[tuple[str, ...], ...]
    result: str
    call: Callable[..., Any]

    def run(self, *arguments: Any) -> Any:
        """Call it. Raises HubError only: any other exception becomes a RejectedError about the arguments."""
        try:
            return self.call(*arguments)
        except HubError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RejectedError("HUB-E3128", function=self.name, reason=reason) from error


def declare(function: Function) -> Any:
    """CEL's declaration of the function."""
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
    """The number's exact text. For a float it is looked up by path, else among the numbers with that value."""
    if isinstance(number, float):
        return _float_text(scope, number, path)
    try:
        return plain_decimal(str(number))
    except ValueError as error:
        raise RejectedError("HUB-E3126", value=str(number)[:60]) from error


def _float_text(scope: Scope, number: float, path: str | None) -> str:
    exact = scope.numbers.get(tuple(json.loads(path))) if path is not None else None
    if exact is not None:
        return plain_decimal(exact)
    texts = [plain_decimal(text) for text in scope.written(number)] if path is None else []
    if len(set(map(_normalized, texts))) > 1:
        raise RejectedError("HUB-E3127", value=" / ".join(texts[:3]))
    return texts[0] if texts else plain_decimal(repr(number))


def _normalized(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


_NUMBERS = ("string", "int", "double")
DECIMAL = Function(
    "decimal", (*((name,) for name in _NUMBERS), *((name, "string") for name in _NUMBERS)), "string", _decimal
)


def with_paths(text: str, names: frozenset[str]) -> str:
    """Pass each `decimal(body.a.b)` its path as a second argument, so that it finds the text of exactly that number.

    The value alone cannot distinguish 12345678901234567.89 from 12345678901234567.90: as floats they are equal.
    """
    parsed = tokens(text)
    reads = {path.at: path for path in paths(text, names)}
    pieces, done = [], 0
    for at, token in enumerate(parsed):
        path = _decimal_of(parsed, at, reads)
        if token.text == "decimal" and path is not None:
            exact = json.dumps([path.root, *path.parts], ensure_ascii=False)
            pieces += [text[done : path.end], ", ", json.dumps(exact, ensure_ascii=False)]
            done = path.end
    return "".join([*pieces, text[done:]])


def _decimal_of(parsed: list[Token], at: int, reads: Mapping[int, PathRead]) -> PathRead | None:
    """The path that is the whole argument of the call at this token, if it needs no evaluation."""
    path = reads.get(parsed[at + 2].at) if at + 2 < len(parsed) and parsed[at + 1].text == "(" else None
    if path is None or any(isinstance(part, PathRead) for part in path.parts):
        return None
    after = next((token for token in parsed if token.at >= path.end), None)
    return path if after is not None and after.text == ")" else None
