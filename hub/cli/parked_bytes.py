"""Renders the bytes of parked work for people, indented and with secrets masked; and applies corrections to them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.errors import RejectedError
from hub.runtime.logs import MASK, SecretMask

if TYPE_CHECKING:
    from hub.ledger.database import AnyRow

MAX_SHOWN_CHARS = 64 * 1024
"""Characters of a body that a terminal shows; `--json` has all."""


def current_bytes(entry: AnyRow) -> bytes:
    """The bytes that the next retry reads: the correction, else the received bytes."""
    return bytes(entry.body if entry.correction is None else entry.correction)


def masked(value: Any, secrets: Collection[str]) -> Any:
    """A value with secrets masked: those of the home wherever they occur, and every field that is named like one."""
    return SecretMask(secrets)(None, "", {"value": value})["value"]


def shown(body: bytes, secrets: Collection[str]) -> str:
    """Bytes as readable text: JSON is indented; secrets are masked."""
    value = parsed(body)
    return (
        str(masked(body.decode(errors="backslashreplace"), secrets))
        if value is None
        else indented(masked(value, secrets))
    )


def parsed(body: bytes) -> Any:
    """The JSON object or list in these bytes; None for anything else."""
    import json

    import orjson

    from hub.config.strict_json import BOM, storable

    plain = body.removeprefix(BOM)
    try:
        value = orjson.loads(plain)
    except orjson.JSONDecodeError:
        try:
            value = storable(json.loads(plain.decode()))  # half a surrogate pair is JSON, but no text
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list) else None


def indented(value: Any) -> str:
    """Indented JSON, one value a line."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def difference(before: bytes, after: bytes, secrets: Collection[str]) -> list[str]:
    """A correction as lines of a unified diff, secrets masked; empty when it changes nothing visible."""
    old, new = shown(before, secrets).split("\n"), shown(after, secrets).split("\n")
    return list(difflib.unified_diff(old, new, "parked", "corrected", lineterm="", n=2))


def unmasked(edited: Any, original: Any, secrets: Collection[str]) -> Any:
    """The edited value with its masked secrets restored, where they were left unchanged."""
    masked_original = masked(original, secrets)
    if edited == masked_original:
        return original
    if isinstance(edited, dict) and isinstance(original, dict):
        return {key: _unmasked_field(key, value, original, masked_original, secrets) for key, value in edited.items()}
    if isinstance(edited, list) and isinstance(original, list) and len(edited) == len(original):
        return [unmasked(one, other, secrets) for one, other in zip(edited, original, strict=True)]
    return edited


def _unmasked_field(
    key: str, value: Any, original: Mapping[str, Any], masked_original: Mapping[str, Any], secrets: Collection[str]
) -> Any:
    if key in original and value == masked_original[key]:
        return original[key]
    return unmasked(value, original[key], secrets) if key in original and value != MASK else value


def with_settings(value: Any, settings: Sequence[str]) -> Any:
    """A JSON value with these `a.b.0.c=VALUE` applied. A text stays a text; else VALUE is parsed as JSON, or taken as text."""
    import copy

    changed = copy.deepcopy(value)
    for setting in settings:
        path, sign, text = setting.partition("=")
        keys = path.strip().split(".")
        if not sign or not all(keys):
            raise RejectedError("HUB-E6210", setting=setting)
        _set(changed, keys, text, setting)
    return changed


def _set(value: Any, keys: Sequence[str], text: str, setting: str) -> None:
    *parents, last = keys
    for key in parents:
        value = _descend(value, key, setting)
    if isinstance(value, dict):
        value[last] = text if isinstance(value.get(last), str) else _read(text)
    elif isinstance(value, list) and last.isdecimal() and int(last) < len(value):
        value[int(last)] = text if isinstance(value[int(last)], str) else _read(text)
    else:
        raise RejectedError("HUB-E6210", setting=setting)


def _descend(value: Any, key: str, setting: str) -> Any:
    if isinstance(value, dict):
        return value.setdefault(key, {})
    if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
        return value[int(key)]
    raise RejectedError("HUB-E6210", setting=setting)


def _read(text: str) -> Any:
    import orjson

    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def lines(body: bytes, secrets: Collection[str]) -> Iterator[str]:
    """The bytes for a terminal; a long body is cut, with a last line that points to `--json`."""
    text = shown(body, secrets)
    yield from (f"  | {line}" for line in text[:MAX_SHOWN_CHARS].split("\n"))
    if len(text) > MAX_SHOWN_CHARS:
        yield f"… {len(body)} bytes → --json"
