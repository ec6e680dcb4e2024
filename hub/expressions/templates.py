"""Templates: YAML values whose texts contain expressions, `${…}`."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hub.config.strict_json import Json, Path
from hub.config.yaml_places import Filled
from hub.errors import FatalError, Place, RejectedError
from hub.expressions.expression import Expression, Scope, kind, place_within
from hub.expressions.reading import TEXT


@dataclass(frozen=True)
class Joined:
    """A text of several pieces: literals, and expressions that give texts or whole numbers."""

    pieces: tuple[str | Expression, ...]

    def render(self, scope: Scope) -> str:
        """Render the text; raises RejectedError for a piece that is null, true, false, a fraction, a list or a map."""
        return "".join([piece if isinstance(piece, str) else self._text(piece, scope) for piece in self.pieces])

    def _text(self, piece: Expression, scope: Scope) -> str:
        value = piece.value(scope)
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise RejectedError("HUB-E3125", place=piece.place, expression=piece.text, type=kind(value))


Node = Any
"""Expression, Joined, dict or list of nodes, or a plain value."""


@dataclass(frozen=True)
class Template:
    """A YAML value, compiled. A text that is exactly one `${…}` keeps the type of its value."""

    root: Node
    expressions: tuple[Expression, ...]
    joined: tuple[Expression, ...]
    """The expressions that are only part of a longer text."""

    @functools.cached_property
    def render(self) -> Callable[[Scope], Json]:
        """Render the value; raises RejectedError as the expressions do."""
        return _renderer(self.root)


Compile = Callable[[str, Place], Expression]
PlaceOf = Callable[[Path], Place]


def compiled(value: Any, place_of: PlaceOf, compile_: Compile) -> Template:
    """Compile a YAML value; raises FatalError with place for a text that cannot be parsed."""
    root = _node(value, (), place_of, compile_)
    expressions = tuple(_expressions(root))
    joined = tuple(each for each, is_joined in expressions if is_joined)
    return Template(root, tuple(each for each, _ in expressions), joined)


def _node(value: Any, path: Path, place_of: PlaceOf, compile_: Compile) -> Node:
    if isinstance(value, dict):
        return {key: _node(inner, (*path, key), place_of, compile_) for key, inner in value.items()}
    if isinstance(value, list):
        return [_node(inner, (*path, at), place_of, compile_) for at, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return str(value) if isinstance(value, Filled) else value
    pieces = tuple(_pieces(value, place_of(path), compile_))
    return pieces[0] if len(pieces) == 1 else Joined(pieces)


def _pieces(text: str, place: Place, compile_: Compile) -> Iterator[str | Expression]:
    literal, at = "", 0
    while at < len(text):
        end = _expression_end(text, at, place)
        if end is None:
            literal, at = literal + text[at], at + 1
            continue
        if literal:
            yield literal
        offset = text.original(at + 2) if isinstance(text, Filled) else at + 2
        yield compile_(text[at + 2 : end], place_within(place, text, offset))
        literal, at = "", end + 1
    if literal:
        yield literal


def _expression_end(text: str, at: int, place: Place) -> int | None:
    """Offset of the closing `}` of the expression that starts here; None if no expression starts here."""
    if not text.startswith("${", at) or (isinstance(text, Filled) and text.is_filled(at)):
        return None
    depth, here = 0, at + 2
    while here < len(text):
        quoted = _TEXT.match(text, here)
        if quoted is not None and not _in_a_name(text, here):
            here = quoted.end()
            continue
        if text[here] == "}" and depth == 0:
            return here
        depth += {"{": 1, "}": -1}.get(text[here], 0)
        here += 1
    raise FatalError("HUB-E3115", place=place_within(place, text, at), text=text[:80])


def _in_a_name(text: str, at: int) -> bool:
    """Whether the letter here continues a name, so that it does not begin a raw string `r"…"`."""
    return text[at] not in "\"'" and (text[at - 1].isalnum() or text[at - 1] == "_")


_TEXT = re.compile(TEXT, re.DOTALL)
FULL_WIDTH = re.compile("[$＄](?:｛|(?<=＄){)[^}｝]{0,80}[}｝]?")
"""`${…}` in full-width characters of an input method: a plain text, but probably a mistake."""


def literals(node: Node) -> Iterator[str]:
    """Every literal text of a node."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, Joined):
        yield from (piece for piece in node.pieces if isinstance(piece, str))
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from literals(inner)


def _expressions(node: Node) -> Iterator[tuple[Expression, bool]]:
    """Every expression of a node, in order, and whether it is part of a longer text."""
    if isinstance(node, Expression):
        yield node, False
    elif isinstance(node, Joined):
        yield from ((piece, True) for piece in node.pieces if isinstance(piece, Expression))
    elif isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _expressions(inner)


def _renderer(node: Node) -> Callable[[Scope], Json]:
    if isinstance(node, Expression):
        return node.value
    if isinstance(node, Joined):
        return node.render
    if isinstance(node, dict):
        entries = [(key, _renderer(inner)) for key, inner in node.items()]
        return lambda scope: {key: inner(scope) for key, inner in entries}
    if isinstance(node, list):
        items = [_renderer(inner) for inner in node]
        return lambda scope: [inner(scope) for inner in items]
    return lambda scope: node
