"""One expression and its evaluation: no value leaves here unchecked.

cel-expr-python reports a failure at run time as a *value* of type ERROR that holds text; every evaluation here looks at the
type first. An evaluation is bounded by CEL's own budgets for rounds and nesting, and by `effort` for what a round makes.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cel_expr_python import cel

from hub.config.strict_json import Json, Path, sizes
from hub.config.validation import near
from hub.errors import HubError, Place, RejectedError
from hub.expressions.complaints import TYPES, in_words
from hub.expressions.cost import LIMIT, Effort
from hub.expressions.reading import Missing, PathRead, follow
from schemas.envelope import format_time

MAX_RESULT = 256 * 1024
"""Characters of an evaluation's texts, all together."""
MAX_SHOWN = 200
MAX_NODES = 20_000
"""Values in an evaluation's lists and maps, all together."""
NO_NUMBERS: Mapping[Path, str] = MappingProxyType({})

Shortcut = Callable[["Scope"], Json]
"""What is given → the answer, None when CEL has to find it. Raises what a function of ours raises."""

_running = threading.local()


def running() -> Scope:
    """The scope of the evaluation that this thread is in: what functions of ours are called for."""
    scope: Scope = _running.scope
    return scope


class Scope:
    """The values of one evaluation or many, converted once. `context` is what our functions are told. For one thread at a time.

    `numbers` are the texts of numbers that a float has lost. An event makes a scope or two: so it is made of little.
    """

    __slots__ = ("_activations", "_by_value", "context", "numbers", "raised", "values")

    def __init__(self, values: dict[str, Json], context: Any, numbers: Mapping[Path, str] = NO_NUMBERS) -> None:
        self.values, self.context, self.numbers = values, context, numbers
        self.raised: HubError | None = None
        self._by_value: dict[float, list[str]] | None = None
        self._activations: dict[int, Any] | None = None

    def also(self, more: Mapping[str, Json]) -> Scope:
        """A scope that has these values besides, under the same context."""
        return Scope({**self.values, **more}, self.context, self.numbers)

    def written(self, number: float) -> Sequence[str]:
        """How numbers of this value are written among its values."""
        if self._by_value is None:
            self._by_value = {}
            for text in self.numbers.values():
                self._by_value.setdefault(float(text), []).append(text)
        return self._by_value.get(number, ())

    def activation(self, env: Any) -> Any:
        """The values as CEL reads them, for one environment."""
        if self._activations is None:
            self._activations = {}
        found = self._activations.get(id(env))
        if found is None:
            found = self._activations[id(env)] = env.Activation(self.values)
        return found


class Budget:
    """How much one evaluation's value may still hold."""

    def __init__(self) -> None:
        self.nodes, self.characters = MAX_NODES, MAX_RESULT

    def spend(self, characters: int) -> bool:
        """Count one value; False when it is too much."""
        self.nodes -= 1
        self.characters -= characters
        return self.nodes >= 0 and self.characters >= 0


@dataclass(frozen=True)
class Expression:
    """One compiled expression. `place` is where its text starts."""

    text: str
    place: Place
    reads: tuple[PathRead, ...]
    _env: Any
    _compiled: Any
    _effort: Effort
    _shortcut: Shortcut | None = None

    def value(self, scope: Scope) -> Json:
        """Evaluate; raises RejectedError with place and expression for any failure, a missing field among them."""
        if self._shortcut is not None:
            try:
                found = self._shortcut(scope)
            except HubError as error:
                raise self._placed(error) from error
            if found is not None:
                return found
        return self._evaluated(scope)

    def _evaluated(self, scope: Scope) -> Json:
        self._bound(scope)
        scope.raised = None
        _running.scope = scope
        try:
            result = self._compiled.eval(scope.activation(self._env))
        except RuntimeError as error:
            raise self._failed(str(error)) from error
        if result.type() == cel.Type.ERROR:
            raise self._error(scope, str(result.value()))
        value = result.value()
        if isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_RESULT):
            return value
        try:
            return self._json(result, Budget())
        except RecursionError as error:
            raise self._too_much("nesting") from error

    def matched(self, scope: Scope) -> dict[str, Json]:
        """The paths that it reads, with their values, for people: long texts are cut, lists and maps left out."""
        found = {name: follow(path, scope.values) for name, path in self._named}
        return {
            path: value[:MAX_SHOWN] if isinstance(value, str) else value
            for path, value in found.items()
            if value is None or isinstance(value, str | int | float)
        }

    @functools.cached_property
    def _named(self) -> Sequence[tuple[str, PathRead]]:
        return [(str(path), path) for path in self.reads]

    def missing(self, scope: Scope) -> list[Missing]:
        """The fields that it names and that are not there."""
        broken = [follow(path, scope.values) for path in self.reads if not path.asked]
        return [found for found in broken if isinstance(found, Missing)]

    def at(self, offset: int) -> Place:
        """The place of one of its characters."""
        return within(self.place, self.text, offset)

    def _bound(self, scope: Scope) -> None:
        if self._effort.small:
            return
        read = [follow(path, scope.values) for path in self.reads]
        entries, longest, totals = sizes(read)
        mentions = zip([path.at for path in self.reads], totals, strict=True)
        estimate = self._effort.estimate(entries, longest, mentions)
        if estimate > LIMIT:
            raise self._too_much(f"{estimate // 1_000_000} ms > {LIMIT // 1_000_000} ms")

    def _too_much(self, work: str) -> RejectedError:
        return RejectedError("HUB-E3123", place=self.place, expression=self.text, work=work)

    def _error(self, scope: Scope, reason: str) -> HubError:
        if scope.raised is not None:
            return self._placed(scope.raised)
        lost = self.missing(scope)
        if lost:
            return self._lacks(lost[0])
        named = re.search(r'Key not found in map : "(.*)"', reason)
        return self._lacks(Missing(named[1], 0, named[1], ())) if named else self._failed(reason)

    def _placed(self, error: HubError) -> HubError:
        error.place = error.place or self.place
        error.seen.setdefault("expression", self.text)
        return error

    def _lacks(self, lost: Missing) -> RejectedError:
        return RejectedError(
            "HUB-E3120",
            place=self.at(lost.at),
            expression=self.text,
            missing=lost.path,
            near=near(lost.part, lost.known),
        )

    def _failed(self, reason: str) -> RejectedError:
        cleaned = re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", reason)
        kind = "types" if cleaned.startswith(TYPES) else "value"
        return RejectedError("HUB-E3121", place=self.place, expression=self.text, reason=in_words(cleaned), kind=kind)

    def _json(self, result: Any, left: Budget) -> Json:
        """CEL's value as JSON has it. Maps are sorted: CEL keeps no order, and the same event must give the same bytes."""
        value = result.value()
        if not left.spend(len(value) if isinstance(value, str) else 0):
            raise self._too_much(f"> {MAX_NODES} / {MAX_RESULT}")
        if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, datetime.datetime):
            return format_time(value)
        if isinstance(value, list):
            return [self._json(inner, left) for inner in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: self._json(value[key], left) for key in sorted(value)}
        raise RejectedError("HUB-E3124", place=self.place, expression=self.text, type=type(value).__name__)


@dataclass(frozen=True)
class Condition:
    """An expression that says yes or no."""

    expression: Expression

    def test(self, scope: Scope) -> bool:
        """Evaluate; raises RejectedError for any failure and for a value that is neither true nor false."""
        value = self.expression.value(scope)
        if not isinstance(value, bool):
            raise RejectedError(
                "HUB-E3122", place=self.expression.place, expression=self.expression.text, type=kind(value)
            )
        return value


def within(place: Place, text: str, offset: int) -> Place:
    """The place of a character of a text that starts at `place`."""
    before = text[:offset]
    newlines = before.count("\n")
    behind = offset - (before.rfind("\n") + 1)
    return Place(place.file, place.line + newlines, place.column + behind) if place.line else place


def kind(value: Json) -> str:
    """What CEL calls the type of a value."""
    if value is None:
        return "null"
    names = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map"}
    return names.get(type(value), type(value).__name__)
