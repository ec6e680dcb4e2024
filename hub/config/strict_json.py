"""Strict decoding of outside JSON that preserves the text of its numbers."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hub.errors import RejectedError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_DIGITS = 40
"""Characters of a number, point and exponent included."""
MAX_VALUES = 50_000
"""Values of one document, keys not counted: a mapping can process that many without delaying other deliveries."""
REPLACEMENT = "\ufffd"
"""Replaces a character in a text that some store cannot hold."""
BOM = b"\xef\xbb\xbf"
_INT64 = 2**63
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE](?P<exponent>[+-]?[0-9]+))?")
_BROKEN = re.compile("[\0\ud800-\udfff]")
# An unterminated text ends at the end of the bytes: so each byte is scanned once, whatever the input.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)

Json = Any
"""A plain JSON value: dict, list, str, int, float, bool or None, of exactly these classes."""
Path = tuple[str | int, ...]
_Trail = tuple[Any, str | int] | None
"""A path as a linked list: the trail to the parent, and the last part. Only few are converted to a `Path`."""


@dataclass(frozen=True)
class Document:
    """A JSON value. `numbers`: path → text of each number whose float has another text.

    `broken` is true if a text held NUL or half a surrogate pair: `value` has U+FFFD instead.
    """

    value: Json
    numbers: Mapping[Path, str] = field(default_factory=dict)
    broken: bool = False


class _NumberText:
    """A number in the parser's output, with its text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_DIGITS or float(text) in (float("inf"), float("-inf")):
            raise RejectedError("HUB-E3132", number=text[:MAX_DIGITS])
        self.text = text


def read_json(raw: bytes, max_bytes: int = MAX_BYTES) -> Document:
    """Decode one JSON document; a leading byte order mark is ignored (RFC 8259, 8.1).

    Raises RejectedError for bytes that are no JSON in UTF-8, a key given twice in one object, NaN, Infinity or a number too
    large to compute with, more than 64 levels, more than `MAX_VALUES` values, or more than `max_bytes`.
    """
    if len(raw) > max_bytes:
        raise RejectedError("HUB-E3135", bytes=len(raw), most=max_bytes)
    if not has_few_values(raw, MAX_VALUES):
        raise RejectedError("HUB-E3136", most=MAX_VALUES)
    try:
        parsed = _DECODER.decode(raw.removeprefix(BOM).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nesting" if isinstance(error, RecursionError) else str(error)
        raise RejectedError("HUB-E3130", reason=reason) from error
    conversion = _Conversion()
    return Document(conversion.plain(parsed, None, 0), conversion.numbers, conversion.broken)


def has_few_values(raw: bytes, most: int) -> bool:
    """Whether a document has at most `most` values, without parsing it: each but the first follows `,`, `[` or `{`.

    That many values come with fewer than four times as many such signs and texts, so the scan stops there.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) < most:
        return True
    is_sign = [match[0][:1] != b'"' for match in itertools.islice(_STRUCTURE.finditer(raw), 4 * most)]
    return len(is_sign) < 4 * most and sum(is_sign) < most


def plain_decimal(text: str) -> str:
    """A number's text without an exponent and with every digit; raises ValueError for other text and for huge exponents."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if match is None or abs(int(match["exponent"] or 0)) > MAX_DIGITS:
        raise ValueError(f"not a number: {text[:MAX_DIGITS]}")
    return format(Decimal(text), "f")


def _integer(text: str) -> int | _NumberText:
    if len(text) <= MAX_DIGITS:
        number = int(text)
        if -_INT64 <= number < _INT64:
            return number
    return _NumberText(text)


def _refuse_constant(text: str) -> None:
    raise RejectedError("HUB-E3132", number=text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RejectedError("HUB-E3131", key=storable_text(_first_duplicate(keys))[:100])
    return decoded


def _first_duplicate(keys: list[str]) -> str:
    seen = set[str]()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None is false


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_NumberText, parse_int=_integer, parse_constant=_refuse_constant
)


class _Conversion:
    """Converts the parser's output to plain values, and collects number texts and broken texts."""

    def __init__(self) -> None:
        self.numbers: dict[Path, str] = {}
        self.broken = False

    def plain(self, value: Any, trail: _Trail, depth: int) -> Json:
        """The plain value at the end of a trail."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, _NumberText):
            return self._number(value, trail)
        if not isinstance(value, dict | list):
            return value
        if depth >= MAX_DEPTH:
            raise RejectedError("HUB-E3134", most=MAX_DEPTH)
        if isinstance(value, list):
            return [self.plain(inner, (trail, at), depth + 1) for at, inner in enumerate(value)]
        plain = {self._text(key): self.plain(inner, (trail, key), depth + 1) for key, inner in value.items()}
        if len(plain) < len(value):  # keys that differ only in replaced characters
            raise RejectedError("HUB-E3131", key=REPLACEMENT)
        return plain

    def _text(self, text: str) -> str:
        if is_storable(text):
            return text
        self.broken = True
        return storable_text(text)

    def _number(self, value: _NumberText, trail: _Trail) -> float:
        number = float(value.text)
        if value.text != repr(number):
            self.numbers[_path(trail)] = value.text
        return number


def _path(trail: _Trail) -> Path:
    parts: list[str | int] = []
    while trail is not None:
        trail, part = trail
        parts.append(storable_text(part) if isinstance(part, str) else part)
    return tuple(reversed(parts))


def is_storable(text: str) -> bool:
    """Whether every store can hold the text: it has no NUL, where CEL truncates it and which PostgreSQL refuses, and no half of a
    surrogate pair, which UTF-8 cannot encode."""
    return _BROKEN.search(text) is None


def storable_text(text: str) -> str:
    """The text with U+FFFD for NUL and each half of a surrogate pair."""
    return _BROKEN.sub(REPLACEMENT, text)


def storable(value: Json) -> Json:
    """A JSON value with `storable_text` applied to all of its texts."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, list):
        return [storable(inner) for inner in value]
    if isinstance(value, dict):
        return {storable_text(key): storable(inner) for key, inner in value.items()}
    return value


def holds_replacement(value: Json) -> bool:
    """Whether any text or key in a value holds U+FFFD."""
    return REPLACEMENT in json.dumps(value, ensure_ascii=False, default=str)


def sizes(values: Iterable[Json]) -> tuple[int, int, list[int]]:
    """The entries of the largest list or map in these values, the length of the longest text, and each value's entries in total.

    A part shared by several values is measured once.
    """
    entries = longest = 0
    known: dict[int, int] = {}

    def within(value: Json) -> int:
        nonlocal entries, longest
        if isinstance(value, str):
            longest = max(longest, len(value))
        if not isinstance(value, dict | list):
            return 0
        if id(value) not in known:
            entries = max(entries, len(value))
            known[id(value)] = len(value) + sum(map(within, value.values() if isinstance(value, dict) else value))
        return known[id(value)]

    totals = [within(value) for value in values]
    return entries, longest, totals
