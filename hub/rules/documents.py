"""JSON from outside, read strictly and with its numbers kept as they were written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hub.errors import RejectedError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_DIGITS = 40
"""Of a number, point and exponent included."""
_INT64 = 2**63
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE](?P<exponent>[+-]?[0-9]+))?")

Json = Any
"""A plain JSON value: dict, list, str, int, float, bool or None, of exactly these classes."""
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A JSON value. `numbers` holds, by path, the text of each number that its float would not give back."""

    value: Json
    numbers: Mapping[Path, str] = field(default_factory=dict)


class _Written:
    """A number on its way through the parser, with its text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_DIGITS or float(text) in (float("inf"), float("-inf")):
            raise RejectedError("HUB-E3132", number=text[:MAX_DIGITS])
        self.text = text


def read_json(raw: bytes, max_bytes: int = MAX_BYTES) -> Document:
    """Read one JSON document.

    Raises RejectedError for bytes that are no JSON in UTF-8, a key given twice in one object, NaN, Infinity or a number too
    large to compute with, half a surrogate pair or NUL in a text, more than 64 levels, or more than `max_bytes`.
    """
    if len(raw) > max_bytes:
        raise RejectedError("HUB-E3135", bytes=len(raw), most=max_bytes)
    try:
        parsed = _DECODER.decode(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nesting" if isinstance(error, RecursionError) else str(error)
        raise RejectedError("HUB-E3130", reason=reason) from error
    numbers: dict[Path, str] = {}
    return Document(_plain(parsed, (), numbers), numbers)


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
        raise RejectedError("HUB-E3131", key=next(key for key in keys if keys.count(key) > 1)[:100])
    return made


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_Written, parse_int=_integer, parse_constant=_refuse_constant
)


def _plain(value: Any, path: Path, numbers: dict[Path, str]) -> Json:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, _Written):
        return _number(value, path, numbers)
    if not isinstance(value, dict | list):
        return value
    if len(path) >= MAX_DEPTH:
        raise RejectedError("HUB-E3134", most=MAX_DEPTH)
    if isinstance(value, dict):
        return {_text(key): _plain(inner, (*path, key), numbers) for key, inner in value.items()}
    return [_plain(inner, (*path, at), numbers) for at, inner in enumerate(value)]


def is_whole(text: str) -> bool:
    """Whether a text can go everywhere: not with NUL, where CEL cuts it off and which PostgreSQL refuses, nor with half a
    surrogate pair, which UTF-8 cannot write."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text))


def _text(value: str) -> str:
    if not is_whole(value):
        raise RejectedError("HUB-E3133")
    return value


def _number(value: _Written, path: Path, numbers: dict[Path, str]) -> float:
    number = float(value.text)
    if value.text != repr(number):
        numbers[path] = value.text
    return number


def sizes(values: list[Json]) -> tuple[int, int]:
    """The most entries that any list or map in these values has, and the length of their longest text."""
    entries = longest = 0
    for value in _walk(list(values)):
        if isinstance(value, str):
            longest = max(longest, len(value))
        elif isinstance(value, dict | list):
            entries = max(entries, len(value))
    return entries, longest


def _walk(values: list[Json]) -> Iterator[Json]:
    waiting = values
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
