"""JSON from outside, read strictly and with its numbers kept as they were written."""

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
"""Of a number, point and exponent included."""
MAX_VALUES = 50_000
"""Values of one document, keys not counted: what a mapping may look at without making others wait."""
REPLACEMENT = "\ufffd"
"""Stands in a text for a character that cannot go everywhere."""
BOM = b"\xef\xbb\xbf"
_INT64 = 2**63
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE](?P<exponent>[+-]?[0-9]+))?")
_BROKEN = re.compile("[\0\ud800-\udfff]")
# A text that does not end is one that ends with the bytes: so each byte is looked at once, whatever was sent.
_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[,\[{]', re.DOTALL)

Json = Any
"""A plain JSON value: dict, list, str, int, float, bool or None, of exactly these classes."""
Path = tuple[str | int, ...]
_Trail = tuple[Any, str | int] | None
"""A path as it is walked: the trail to the parent, and the last part. Few of them are ever written out."""


@dataclass(frozen=True)
class Document:
    """A JSON value. `numbers` holds, by path, the text of each number that its float would not give back.

    `broken` is true where a text held NUL or half a surrogate pair: each stands as U+FFFD in `value`.
    """

    value: Json
    numbers: Mapping[Path, str] = field(default_factory=dict)
    broken: bool = False


class _Written:
    """A number on its way through the parser, with its text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_DIGITS or float(text) in (float("inf"), float("-inf")):
            raise RejectedError("HUB-E3132", number=text[:MAX_DIGITS])
        self.text = text


def read_json(raw: bytes, max_bytes: int = MAX_BYTES) -> Document:
    """Read one JSON document; a byte order mark before it is passed over (RFC 8259, 8.1).

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
    reading = _Reading()
    return Document(reading.plain(parsed, None, 0), reading.numbers, reading.broken)


def has_few_values(raw: bytes, most: int) -> bool:
    """Whether a document holds at most so many values, without parsing it: each but the first comes after `,`, `[` or `{`.

    So many values have fewer than four times as many marks and texts: it looks no further.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) < most:
        return True
    found = [match[0][:1] != b'"' for match in itertools.islice(_STRUCTURE.finditer(raw), 4 * most)]
    return len(found) < 4 * most and sum(found) < most


def plain_decimal(text: str) -> str:
    """Write a number's text without an exponent, every digit kept; raises ValueError for other text and for absurd sizes."""
    found = _NUMBER.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if found is None or abs(int(found["exponent"] or 0)) > MAX_DIGITS:
        raise ValueError(f"not a number: {text[:MAX_DIGITS]}")
    return format(Decimal(text), "f")


def _integer(text: str) -> int | _Written:
    if len(text) <= MAX_DIGITS:
        number = int(text)
        if -_INT64 <= number < _INT64:
            return number
    return _Written(text)


def _refuse_constant(text: str) -> None:
    raise RejectedError("HUB-E3132", number=text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RejectedError("HUB-E3131", key=made_whole(_first_twice(keys))[:100])
    return made


def _first_twice(keys: list[str]) -> str:
    seen = set[str]()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # None is false


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_Written, parse_int=_integer, parse_constant=_refuse_constant
)


class _Reading:
    """Turns what the parser gave into plain values, and notes what is special about them."""

    def __init__(self) -> None:
        self.numbers: dict[Path, str] = {}
        self.broken = False

    def plain(self, value: Any, trail: _Trail, depth: int) -> Json:
        """The plain value at the end of a trail."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, _Written):
            return self._number(value, trail)
        if not isinstance(value, dict | list):
            return value
        if depth >= MAX_DEPTH:
            raise RejectedError("HUB-E3134", most=MAX_DEPTH)
        if isinstance(value, list):
            return [self.plain(inner, (trail, at), depth + 1) for at, inner in enumerate(value)]
        made = {self._text(key): self.plain(inner, (trail, key), depth + 1) for key, inner in value.items()}
        if len(made) < len(value):  # keys that differ only in what cannot go everywhere
            raise RejectedError("HUB-E3131", key=REPLACEMENT)
        return made

    def _text(self, text: str) -> str:
        if is_whole(text):
            return text
        self.broken = True
        return made_whole(text)

    def _number(self, value: _Written, trail: _Trail) -> float:
        number = float(value.text)
        if value.text != repr(number):
            self.numbers[_path(trail)] = value.text
        return number


def _path(trail: _Trail) -> Path:
    parts: list[str | int] = []
    while trail is not None:
        trail, part = trail
        parts.append(made_whole(part) if isinstance(part, str) else part)
    return tuple(reversed(parts))


def is_whole(text: str) -> bool:
    """Whether a text can go everywhere: not with NUL, where CEL cuts it off and which PostgreSQL refuses, nor with half a
    surrogate pair, which UTF-8 cannot write."""
    return _BROKEN.search(text) is None


def made_whole(text: str) -> str:
    """The text with U+FFFD for each character that cannot go everywhere."""
    return _BROKEN.sub(REPLACEMENT, text)


def mended(value: Json) -> Json:
    """A JSON value of any source whose texts are all made whole."""
    if isinstance(value, str):
        return made_whole(value)
    if isinstance(value, list):
        return [mended(inner) for inner in value]
    if isinstance(value, dict):
        return {made_whole(key): mended(inner) for key, inner in value.items()}
    return value


def holds_replacement(value: Json) -> bool:
    """Whether any text or key in a value holds U+FFFD."""
    return REPLACEMENT in json.dumps(value, ensure_ascii=False, default=str)


def sizes(values: Iterable[Json]) -> tuple[int, int, list[int]]:
    """The most entries that any list or map in these values has, the length of their longest text, and each value's entries in all.

    What several of them share is looked at once.
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
