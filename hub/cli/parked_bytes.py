"""The bytes of parked work as people may see them: laid out, and without secrets; and what a correction changes in them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hub.errors import RejectedError
from hub.runtime.logs import MASK, Masked

if TYPE_CHECKING:
    from hub.ledger.database import AnyRow

MOST = 64 * 1024
"""Characters of a body that a terminal is given; `--json` has more."""


def present(entry: AnyRow) -> bytes:
    """What the next try reads: the correction, else the bytes that came."""
    return bytes(entry.body if entry.correction is None else entry.correction)


def masked(value: Any, secrets: Collection[str]) -> Any:
    """A value without secrets: those of the home wherever they stand, and every field that is named like one."""
    return Masked(secrets)(None, "", {"value": value})["value"]


def shown(body: bytes, secrets: Collection[str]) -> str:
    """Bytes for reading: JSON is laid out; secrets are masked."""
    value = parsed(body)
    return (
        str(masked(body.decode(errors="backslashreplace"), secrets))
        if value is None
        else laid_out(masked(value, secrets))
    )


def parsed(body: bytes) -> Any:
    """The JSON object or list in these bytes; None for anything else."""
    import json

    import orjson

    from hub.config.strict_json import BOM, mended

    plain = body.removeprefix(BOM)
    try:
        value = orjson.loads(plain)
    except orjson.JSONDecodeError:
        try:
            value = mended(json.loads(plain.decode()))  # half a surrogate pair is JSON, but no text
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict | list) else None


def laid_out(value: Any) -> str:
    """JSON, one value a line."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def difference(before: bytes, after: bytes, secrets: Collection[str]) -> list[str]:
    """What a correction changes, as lines of a unified diff, secrets masked; empty when nothing that can be seen."""
    old, new = shown(before, secrets).split("\n"), shown(after, secrets).split("\n")
    return list(difflib.unified_diff(old, new, "parked", "corrected", lineterm="", n=2))


def unmasked(edited: Any, original: Any, secrets: Collection[str]) -> Any:
    """What was edited with secrets masked, with those put back that were left as they were."""
    seen = masked(original, secrets)
    if edited == seen:
        return original
    if isinstance(edited, dict) and isinstance(original, dict):
        return {key: _put_back(key, value, original, seen, secrets) for key, value in edited.items()}
    if isinstance(edited, list) and isinstance(original, list) and len(edited) == len(original):
        return [unmasked(one, other, secrets) for one, other in zip(edited, original, strict=True)]
    return edited


def _put_back(
    key: str, value: Any, original: Mapping[str, Any], seen: Mapping[str, Any], secrets: Collection[str]
) -> Any:
    if key in original and value == seen[key]:
        return original[key]
    return unmasked(value, original[key], secrets) if key in original and value != MASK else value


def with_settings(value: Any, settings: Sequence[str]) -> Any:
    """A JSON value with these `a.b.0.c=VALUE` put in. A text stays a text; else VALUE is JSON, or a text where it is none."""
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
    *way, last = keys
    for key in way:
        value = _below(value, key, setting)
    if isinstance(value, dict):
        value[last] = text if isinstance(value.get(last), str) else _read(text)
    elif isinstance(value, list) and last.isdecimal() and int(last) < len(value):
        value[int(last)] = text if isinstance(value[int(last)], str) else _read(text)
    else:
        raise RejectedError("HUB-E6210", setting=setting)


def _below(value: Any, key: str, setting: str) -> Any:
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
    """The bytes for a terminal; what is very long is cut, and says so."""
    text = shown(body, secrets)
    yield from (f"  | {line}" for line in text[:MOST].split("\n"))
    if len(text) > MOST:
        yield f"… {len(body)} bytes → --json"
