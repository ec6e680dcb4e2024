"""Evaluates one expression; every result is checked.

cel-expr-python reports a runtime failure as a *value* of type ERROR that holds text, so every evaluation checks the type first.
An evaluation is bounded by CEL's own budgets for iterations and nesting, and by `effort` for the cost of an iteration.
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
from hub.expressions.complaints import TYPE_MISMATCH, translated
from hub.expressions.cost import MAX_EVALUATION_NS, Effort
from hub.expressions.reading import Missing, PathRead, follow
from schemas.envelope import format_time

MAX_RESULT_CHARS = 256 * 1024
"""Characters of all texts in a result together."""
MAX_SHOWN_CHARS = 200
MAX_NODES = 20_000
"""Values in all lists and maps of a result together."""
NO_NUMBERS: Mapping[Path, str] = MappingProxyType({})

Shortcut = Callable[["Scope"], Json]
"""Scope → result; None when CEL must evaluate the expression. Raises what a hub function raises."""

_running = threading.local()


def running() -> Scope:
    """The scope of this thread's current evaluation, for hub functions."""
    scope: Scope = _running.scope
    return scope


class Scope:
    """The values of one or more evaluations, converted once. `context` is passed to hub functions. For one thread at a time.

    `numbers` are the texts of numbers that a float cannot represent. Every event makes one or two scopes, so creating one is cheap.
    """

    __slots__ = ("_activations", "_by_value", "context", "numbers", "raised", "values")

    def __init__(self, values: dict[str, Json], context: Any, numbers: Mapping[Path, str] = NO_NUMBERS) -> None:
        self.values, self.context, self.numbers = values, context, numbers
        self.raised: HubError | None = None
        self._by_value: dict[float, list[str]] | None = None
        self._activations: dict[int, Any] | None = None

    def also(self, more: Mapping[str, Json]) -> Scope:
        """A scope with additional values and the same context."""
        return Scope({**self.values, **more}, self.context, self.numbers)

    def written(self, number: float) -> Sequence[str]:
        """The texts of the numbers with this float value."""
        if self._by_value is None:
            self._by_value = {}
            for text in self.numbers.values():
                self._by_value.setdefault(float(text), []).append(text)
        return self._by_value.get(number, ())

    def activation(self, env: Any) -> Any:
        """The values converted for CEL, for one environment."""
        if self._activations is None:
            self._activations = {}
        activation = self._activations.get(id(env))
        if activation is None:
            activation = self._activations[id(env)] = env.Activation(self.values)
        return activation


class Budget:
    """The remaining size budget of one evaluation's result."""

    def __init__(self) -> None:
        self.nodes, self.characters = MAX_NODES, MAX_RESULT_CHARS

    def spend(self, characters: int) -> bool:
        """Count one value; False when the budget is exceeded."""
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
                result = self._shortcut(scope)
            except HubError as error:
                raise self._placed(error) from error
            if result is not None:
                return result
        return self._evaluated(scope)

    def _evaluated(self, scope: Scope) -> Json:
        self._check_effort(scope)
        scope.raised = None
        _running.scope = scope
        try:
            result = self._compiled.eval(scope.activation(self._env))
        except RuntimeError as error:
            raise self._failed(str(error)) from error
        if result.type() == cel.Type.ERROR:
            raise self._error(scope, str(result.value()))
        value = result.value()
        if isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_RESULT_CHARS):
            return value
        try:
            return self._json(result, Budget())
        except RecursionError as error:
            raise self._too_expensive("nesting") from error

    def matched(self, scope: Scope) -> dict[str, Json]:
        """The paths that it reads, with their values, for people: long texts are cut, lists and maps omitted."""
        values = {name: follow(path, scope.values) for name, path in self._named}
        return {
            path: value[:MAX_SHOWN_CHARS] if isinstance(value, str) else value
            for path, value in values.items()
            if value is None or isinstance(value, str | int | float)
        }

    @functools.cached_property
    def _named(self) -> Sequence[tuple[str, PathRead]]:
        return [(str(path), path) for path in self.reads]

    def missing(self, scope: Scope) -> list[Missing]:
        """The fields that it reads and that do not exist."""
        results = [follow(path, scope.values) for path in self.reads if not path.is_tested]
        return [result for result in results if isinstance(result, Missing)]

    def at(self, offset: int) -> Place:
        """The place of one of its characters."""
        return place_within(self.place, self.text, offset)

    def _check_effort(self, scope: Scope) -> None:
        if self._effort.small:
            return
        values = [follow(path, scope.values) for path in self.reads]
        entries, longest, totals = sizes(values)
        mentions = zip([path.at for path in self.reads], totals, strict=True)
        estimate = self._effort.estimate(entries, longest, mentions)
        if estimate > MAX_EVALUATION_NS:
            raise self._too_expensive(f"{estimate // 1_000_000} ms > {MAX_EVALUATION_NS // 1_000_000} ms")

    def _too_expensive(self, work: str) -> RejectedError:
        return RejectedError("HUB-E3123", place=self.place, expression=self.text, work=work)

    def _error(self, scope: Scope, reason: str) -> HubError:
        if scope.raised is not None:
            return self._placed(scope.raised)
        missing = self.missing(scope)
        if missing:
            return self._missing_field(missing[0])
        match = re.search(r'Key not found in map : "(.*)"', reason)
        return self._missing_field(Missing(match[1], 0, match[1], ())) if match else self._failed(reason)

    def _placed(self, error: HubError) -> HubError:
        error.place = error.place or self.place
        error.seen.setdefault("expression", self.text)
        return error

    def _missing_field(self, missing: Missing) -> RejectedError:
        return RejectedError(
            "HUB-E3120",
            place=self.at(missing.at),
            expression=self.text,
            missing=missing.path,
            near=near(missing.part, missing.known),
        )

    def _failed(self, reason: str) -> RejectedError:
        cleaned = re.sub(r"^[A-Z_]+: | \[[A-Z_]+\]$", "", reason)
        kind = "types" if cleaned.startswith(TYPE_MISMATCH) else "value"
        return RejectedError("HUB-E3121", place=self.place, expression=self.text, reason=translated(cleaned), kind=kind)

    def _json(self, result: Any, budget: Budget) -> Json:
        """CEL's value as plain JSON. Maps are sorted: CEL preserves no order, and the same event must give the same bytes."""
        value = result.value()
        if not budget.spend(len(value) if isinstance(value, str) else 0):
            raise self._too_expensive(f"> {MAX_NODES} / {MAX_RESULT_CHARS}")
        if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
            return value
        if isinstance(value, datetime.datetime):
            return format_time(value)
        if isinstance(value, list):
            return [self._json(inner, budget) for inner in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: self._json(value[key], budget) for key in sorted(value)}
        raise RejectedError("HUB-E3124", place=self.place, expression=self.text, type=type(value).__name__)


@dataclass(frozen=True)
class Condition:
    """An expression with a boolean result."""

    expression: Expression

    def test(self, scope: Scope) -> bool:
        """Evaluate; raises RejectedError for any failure and for a value that is neither true nor false."""
        value = self.expression.value(scope)
        if not isinstance(value, bool):
            raise RejectedError(
                "HUB-E3122", place=self.expression.place, expression=self.expression.text, type=kind(value)
            )
        return value


def place_within(place: Place, text: str, offset: int) -> Place:
    """The place of a character of a text that starts at `place`."""
    before = text[:offset]
    newlines = before.count("\n")
    column = offset - (before.rfind("\n") + 1)
    return Place(place.file, place.line + newlines, place.column + column) if place.line else place


def kind(value: Json) -> str:
    """CEL's name for the type of a value."""
    if value is None:
        return "null"
    names = {bool: "bool", int: "int", float: "double", str: "string", list: "list", dict: "map"}
    return names.get(type(value), type(value).__name__)
