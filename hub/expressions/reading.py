"""Finds the paths (`event.data.amount`) that an expression reads, from its text.

CEL's own parser has no Python API, so this splits the text into tokens and follows only chains of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_RAW = r"""[bB]?[rR][bB]?(?:\"\"\".*?\"\"\"|\'\'\'.*?\'\'\'|"[^"\n]*"|'[^'\n]*')"""
_ESCAPED = (
    r"""[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
)
TEXT = f"(?:{_RAW}|{_ESCAPED})"
"""A CEL string literal: in a raw one (`r"…"`) a backslash is a backslash; three quotes hold single ones and line breaks."""
_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<text>TEXT)
  | (?P<number>0x[0-9a-fA-F]+u?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?u?)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign>.)
    """.replace("TEXT", TEXT),
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Token:
    """`kind` is text, number, name or sign; `at` counts characters from the start of the expression."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class PathRead:
    """A chain of names and indices that starts at a known name. `parts` may hold a PathRead: `a[b.c]`."""

    root: str
    parts: tuple[str | int | PathRead, ...]
    at: int
    end: int
    spots: tuple[int, ...]
    """Offset of each part."""
    is_tested: bool = False
    """It is the argument of `has(…)`: its last part may be missing."""

    def __str__(self) -> str:
        return self.root + "".join(_as_written(part) for part in self.parts)


@dataclass(frozen=True)
class Missing:
    """A path that does not exist: the path up to the missing part, that part's offset, and the names that exist instead."""

    path: str
    at: int
    part: str
    known: tuple[str, ...]


def tokens(text: str) -> list[Token]:
    """Split an expression; spaces and comments are omitted."""
    return [
        Token(str(match.lastgroup), match.group(), match.start())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "space"
    ]


def paths(text: str, names: frozenset[str]) -> tuple[PathRead, ...]:
    """Every path that the expression reads from these names, in order. Variables of macros such as `map` are not followed."""
    return tuple(_paths(tokens(text), names))


def _paths(parsed: list[Token], names: frozenset[str]) -> Iterator[PathRead]:
    at = 0
    while at < len(parsed):
        token = parsed[at]
        after_dot = at > 0 and at > 0 and parsed[at - 1].text == "."
        if token.kind == "name" and token.text in names and not after_dot:
            path, at = _chain(parsed, at, names)
            yield path
            yield from (part for part in path.parts if isinstance(part, PathRead))
        else:
            at += 1


def _chain(parsed: list[Token], at: int, names: frozenset[str]) -> tuple[PathRead, int]:
    root, parts, spots, start = parsed[at], [], [], at
    at += 1
    while at < len(parsed):
        part, after = _part(parsed, at, names)
        if part is None:
            break
        parts.append(part)
        spots.append(parsed[at + 1].at)
        at = after
    last = parsed[at - 1]
    is_tested = start >= 2 and parsed[start - 1].text == "(" and parsed[start - 2].text == "has"
    return PathRead(root.text, tuple(parts), root.at, last.at + len(last.text), tuple(spots), is_tested), at


def _part(parsed: list[Token], at: int, names: frozenset[str]) -> tuple[str | int | PathRead | None, int]:
    """The next part of a chain and the index after it; None at the end of the chain."""
    rest = parsed[at : at + 3]
    if rest[0].text == "." and len(rest) > 1 and rest[1].kind == "name":
        called = len(rest) > 2 and rest[2].text == "("
        return (None, at) if called else (rest[1].text, at + 2)
    if rest[0].text != "[" or len(rest) < 3:
        return None, at
    if rest[2].text == "]" and rest[1].kind == "number" and rest[1].text.isdigit():
        return int(rest[1].text), at + 3
    if rest[2].text == "]" and rest[1].kind == "text" and rest[1].text[0] in "\"'" and "\\" not in rest[1].text:
        return rest[1].text.strip(rest[1].text[0]), at + 3
    if rest[1].kind == "name" and rest[1].text in names:
        inner, after = _chain(parsed, at + 1, names)
        if after < len(parsed) and parsed[after].text == "]":
            return inner, after + 1
    return None, at


def follow(path: PathRead, values: Mapping[str, Any]) -> Any | Missing:
    """The value at a path, or `Missing`."""
    here = values[path.root]
    trail = path.root
    for part, spot in zip(path.parts, path.spots, strict=True):
        key = follow(part, values) if isinstance(part, PathRead) else part
        if isinstance(key, Missing):
            return key
        if _has(here, key):
            here = here[key]
        else:
            known = tuple(str(name) for name in here) if isinstance(here, dict) else ()
            return Missing(trail + _as_written(key), spot, str(key)[:60], known)
        trail += _as_written(key)
    return here


def _has(here: Any, key: object) -> bool:
    if isinstance(here, list):
        return isinstance(key, int) and 0 <= key < len(here)
    return isinstance(here, dict) and key in here


def _as_written(part: object) -> str:
    if isinstance(part, str) and part.isidentifier():
        return f".{part}"
    return f'["{part[:60]}"]' if isinstance(part, str) else f"[{part}]"
