"""What a home announces: the texts of its rules, people and calendar that the log lacks, then their names as one set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hub.rules.history import (
    ANNOUNCED,
    CHANGED,
    WORLD,
    Announced,
    History,
    Sets,
    parted,
    rule_event,
    ruleset_of,
    sha256,
    world_of,
)
from hub.rules.rule_files import Rules
from hub.rules.world_text import calendar_text, people_text
from schemas.event import Event, derived_id
from schemas.hub import RULES_CASE

MOST = 40_000
"""Characters of a text in one event."""


@dataclass(frozen=True)
class Files:
    """What a home's files say, as the log would tell it."""

    sets: Sets
    rules: Mapping[str, str]
    """Rule → digest."""
    texts: Mapping[str, tuple[str, str]]
    """Rule → its file's name and text."""
    people: str
    calendar: str

    @classmethod
    def of(cls, read: Rules, texts: Mapping[str, bytes]) -> Files:
        """The files as they were read, without a mistake."""
        rules = read.rules.digests()
        people, calendar = people_text(read.people), calendar_text(read.working_time)
        sets = Sets(ruleset_of(rules), world_of(sha256(people), sha256(calendar)))
        found = {
            rule.name: (rule.place.file, texts.get(rule.place.file, b"").decode("utf-8-sig", "replace"))
            for rule in read.rules.rules
        }
        return cls(sets, rules, found, people, calendar)


def announcement(files: Files, history: History, now: str, before: Mapping[int, int]) -> list[Event]:
    """The events that put these files in force, in their order. Made again with the same history, they have the same ids."""
    last = history.latest
    return [*_rules(files, last, history, now), *_world(files, history, now), _set(files, last, now, before)]


def _rules(files: Files, last: Announced | None, history: History, now: str) -> Iterator[Event]:
    known = last.rules if last is not None else {}
    for name in sorted({*known, *files.rules}):
        digest, previous = files.rules.get(name), known.get(name)
        if digest == previous and digest in history.rules:
            continue
        file, text = files.texts.get(name, (None, None))
        for part, parts, piece in parted(text, MOST) if text is not None else [(1, 1, None)]:
            id_ = derived_id("rule", name, previous or "", digest or "", last.id if last else "", str(part))
            data = {"digest": digest, "previous": previous, "file": file, "text": piece, "part": part, "parts": parts}
            yield rule_event(CHANGED, id_, f"rule/hub/{name}", now, data)


def _world(files: Files, history: History, now: str) -> Iterator[Event]:
    for what, text in (("people", files.people), ("calendar", files.calendar)):
        value = sha256(text)
        for part, parts, piece in parted(text, MOST) if value not in history.world else ():
            data = {"what": what, "value": value, "text": piece, "part": part, "parts": parts}
            yield rule_event(WORLD, derived_id("world", what, value, str(part)), f"world/hub/{what}", now, data)


def _set(files: Files, last: Announced | None, now: str, before: Mapping[int, int]) -> Event:
    data = {
        **files.sets._asdict(),
        "rules": dict(files.rules),
        "people": sha256(files.people),
        "calendar": sha256(files.calendar),
        "before": {str(partition): offset for partition, offset in before.items() if offset},
    }
    return rule_event(ANNOUNCED, derived_id("rules", *files.sets, last.id if last else ""), RULES_CASE, now, data)
