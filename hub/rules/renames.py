"""Warns of renamed rules and moved entries of `do`, against the rule set that was announced last: they would change command ids.

The command id makes a command idempotent. A rule under a new name, or an entry of `do` in a new position, emits the same commands
under new ids, unless `renamed_from:` or `id:` keeps the old ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from hub.config.yaml_places import Located, parse_yaml
from hub.errors import FatalError
from hub.rules.history import RuleTimeline


class ActionEntry(NamedTuple):
    """An entry of `do`: its slot in command ids, its position, its command type, and its canonical content."""

    slot: object
    at: int
    type: str
    content: bytes


def warnings(history: RuleTimeline, files: Iterable[Located]) -> Iterator[FatalError]:
    """HUB-W3301 for a rule that seems renamed, HUB-W3302 for an entry that was moved."""
    new = {located.value["rule"]: located for located in files if _is_rule(located.value)}
    old = _announced(history)
    for name, located in new.items():
        before = name if name in old else next((each for each in _names(located.value) if each in old), None)
        if before is not None:
            yield from _moved(old[before], located)
            continue
        for gone in sorted(old.keys() - new.keys()):
            if _alike(old[gone], located.value):
                yield FatalError("HUB-W3301", place=located.place(("rule",)), old=gone, name=name)


def _announced(history: RuleTimeline) -> dict[str, dict[str, Any]]:
    """Rule → the content of its file."""
    last = history.latest
    found: dict[str, dict[str, Any]] = {}
    for name, digest in last.rules.items() if last is not None else ():
        text = history.rules.get(digest)
        value = parse_yaml(text.text, text.file, {}).value if text is not None else None
        if value is not None and _is_rule(value):
            found[name] = value
    return found


def _is_rule(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("rule"), str) and isinstance(value.get("do"), list)


def _names(rule: Mapping[str, Any]) -> list[str]:
    names = rule.get("renamed_from", [])
    return [names] if isinstance(names, str) else [each for each in names if isinstance(each, str)]


def _alike(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether they share an event type and have the same command types in the same order."""
    same = [entry.type for entry in entries(old)] == [entry.type for entry in entries(new)]
    return same and bool(_types(old) & _types(new))


def _types(rule: Mapping[str, Any]) -> set[str]:
    types = rule.get("when")
    return {types} if isinstance(types, str) else {each for each in types or () if isinstance(each, str)}


def _moved(old: Mapping[str, Any], located: Located) -> Iterator[FatalError]:
    old_entries = entries(old)
    for entry in entries(located.value):
        was = [each for each in old_entries if each.content == entry.content]
        if was and all(each.slot != entry.slot for each in was):
            place = located.key_place(("do", entry.at, entry.type))
            slot = was[0].slot
            shown = slot + 1 if isinstance(slot, int) else slot
            yield FatalError("HUB-W3302", place=place, command=entry.type, was=was[0].at + 1, id=shown)


def entries(rule: Mapping[str, Any]) -> list[ActionEntry]:
    """The valid entries of `do`."""
    found = []
    for at, step in enumerate(rule["do"]):
        if not isinstance(step, dict) or len(step) != 1:
            continue
        ((type_, given),) = step.items()
        if isinstance(given, dict):
            id_ = given.get("id")
            slot = id_ - 1 if isinstance(id_, int) else id_ or at
            content = {name: value for name, value in given.items() if name != "id"}
            found.append(ActionEntry(slot, at, str(type_), _canonical([type_, content])))
    return found


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
