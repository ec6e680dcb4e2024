"""Rules in the log: announces a home's rules, people and calendar, and rebuilds any rule set from the announced texts.

An announcement is the texts that the log lacks, then one event that names them as a set. People and calendar are written as
canonical JSON. Accounts are left out: no rule can read them. The calendar lists the exceptional days of some decades, because a
country's holidays change with the version of the library that provides them.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import orjson
import structlog
from pydantic import ValidationError

from hub.calendar import WorkingTime
from hub.config.yaml_places import parse_yaml
from hub.engine.case import ANY_RULE, Case
from hub.errors import FatalError, HubError
from hub.people import Department, PeopleDirectory, Person
from hub.rules.files import LoadedRules
from hub.rules.history import (
    RULE_CHANGED_TYPE,
    RULES_ANNOUNCED_TYPE,
    WORLD_CHANGED_TYPE,
    Announced,
    RuleTimeline,
    Sets,
    rule_event,
    ruleset_of,
    sha256,
    split_text,
    world_of,
)
from hub.rules.language import World, read_rule
from hub.rules.rule import Rule
from hub.rules.rule_set import Decisions, RuleSet, engine_for, make_rule_set
from schemas.decoding import AnyEvent
from schemas.domains.hub import RULES_CASE
from schemas.envelope import Event, derived_id

FIRST_YEAR, LAST_YEAR = 2010, 2040
"""The range of years whose working days are written to the log."""


def people_text(people: PeopleDirectory) -> str:
    """The canonical text: departments with their liaisons; people with name, department and roles."""
    return _canonical(
        {
            "departments": {name: {"liaison": each.liaison} for name, each in people.departments.items()},
            "people": {
                name: {"name": each.name, "department": each.department, "roles": list(each.roles)}
                for name, each in people.people.items()
            },
        }
    )


def people_of(text: str) -> PeopleDirectory:
    """The people of a canonical text; raises ValueError for any other text."""
    stored = _object(text)
    departments = {
        name: Department.model_construct(name=None, liaison=each.get("liaison"))
        for name, each in stored["departments"].items()
    }
    people = {
        name: Person(name=each["name"], department=each.get("department"), roles=tuple(each.get("roles", ())))
        for name, each in stored["people"].items()
    }
    return PeopleDirectory(departments, people)


def calendar_text(working_time: WorkingTime) -> str:
    """The canonical text: country, time zone, the home's own days, and the country's exceptional days."""
    exceptions = _exceptional_days(working_time.country)
    return _canonical(
        {
            "country": working_time.country,
            "timezone": working_time.timezone,
            "days": {day.isoformat(): works for day, works in working_time.days.items()},
            "odd": [day.isoformat() for day in exceptions],
            "years": [FIRST_YEAR, LAST_YEAR],
        }
    )


def working_time_of(text: str) -> WorkingTime:
    """The working days of a canonical text; raises ValueError for any other text."""
    stored = _object(text)
    first, last = stored["years"]
    days = {day: day.weekday() >= 5 for day in map(date.fromisoformat, stored["odd"])}
    days |= {date.fromisoformat(day): bool(works) for day, works in stored["days"].items()}
    return WorkingTime(str(stored["country"]), str(stored["timezone"]), days, range(int(first), int(last) + 1))


@functools.lru_cache(maxsize=8)
def _exceptional_days(country: str) -> tuple[date, ...]:
    """Working weekends and days off from Monday to Friday."""
    plain = WorkingTime(country, "UTC")
    days = (
        date(FIRST_YEAR, 1, 1) + timedelta(days=at)
        for at in range((date(LAST_YEAR + 1, 1, 1) - date(FIRST_YEAR, 1, 1)).days)
    )
    return tuple(day for day in days if plain.is_working(day) != (day.weekday() < 5))


def _canonical(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
        if not isinstance(value, dict):
            raise ValueError("no object")
    except orjson.JSONDecodeError as error:
        raise ValueError(str(error)) from error
    return value


MAX_TEXT_CHARACTERS = 40_000
"""The most characters of a text in one event; a longer text is split."""


@dataclass(frozen=True)
class Files:
    """The content of a home's files, in the form in which it is announced."""

    sets: Sets
    rules: Mapping[str, str]
    """Rule → digest."""
    texts: Mapping[str, tuple[str, str]]
    """Rule → its file's name and text."""
    people: str
    calendar: str

    @classmethod
    def of(cls, loaded: LoadedRules, texts: Mapping[str, bytes]) -> Files:
        """From files that were read without a mistake."""
        rules = loaded.rules.digests()
        people, calendar = people_text(loaded.people), calendar_text(loaded.working_time)
        sets = Sets(ruleset_of(rules), world_of(sha256(people), sha256(calendar)))
        rule_texts = {
            rule.name: (rule.place.file, texts.get(rule.place.file, b"").decode("utf-8-sig", "replace"))
            for rule in loaded.rules.rules
        }
        return cls(sets, rules, rule_texts, people, calendar)


def announcement(files: Files, history: RuleTimeline, now: str, before: Mapping[int, int]) -> list[Event]:
    """The events that announce these files, in order. The same history gives the same event ids."""
    last = history.latest
    return [*_rules(files, last, history, now), *_world(files, history, now), _set(files, last, now, before)]


def _rules(files: Files, last: Announced | None, history: RuleTimeline, now: str) -> Iterator[Event]:
    known = last.rules if last is not None else {}
    for name in sorted({*known, *files.rules}):
        digest, previous = files.rules.get(name), known.get(name)
        if digest == previous and digest in history.rules:
            continue
        file, text = files.texts.get(name, (None, None))
        for part, parts, piece in split_text(text, MAX_TEXT_CHARACTERS) if text is not None else [(1, 1, None)]:
            id_ = derived_id("rule", name, previous or "", digest or "", last.id if last else "", str(part))
            data = {"digest": digest, "previous": previous, "file": file, "text": piece, "part": part, "parts": parts}
            yield rule_event(RULE_CHANGED_TYPE, id_, f"rule/hub/{name}", now, data)


def _world(files: Files, history: RuleTimeline, now: str) -> Iterator[Event]:
    for what, text in (("people", files.people), ("calendar", files.calendar)):
        value = sha256(text)
        for part, parts, piece in split_text(text, MAX_TEXT_CHARACTERS) if value not in history.world else ():
            data = {"what": what, "value": value, "text": piece, "part": part, "parts": parts}
            yield rule_event(
                WORLD_CHANGED_TYPE, derived_id("world", what, value, str(part)), f"world/hub/{what}", now, data
            )


def _set(files: Files, last: Announced | None, now: str, before: Mapping[int, int]) -> Event:
    data = {
        **files.sets._asdict(),
        "rules": dict(files.rules),
        "people": sha256(files.people),
        "calendar": sha256(files.calendar),
        "before": {str(partition): offset for partition, offset in before.items() if offset},
    }
    return rule_event(
        RULES_ANNOUNCED_TYPE, derived_id("rules", *files.sets, last.id if last else ""), RULES_CASE, now, data
    )


MAX_CACHED_WORLDS = 8
"""How many worlds, with their rules, are cached."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class IncompleteRules:
    """Rules of which some, or all, are unknown: an unknown rule gives no commands, and may have fired in any stage."""

    known: RuleSet | None = None

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        """The decisions of the known rules."""
        decisions = self.known.commands_for(case, event, occurrence) if self.known is not None else Decisions()
        return (
            decisions._replace(fired=(*decisions.fired, ANY_RULE)) if case.entities[event.subject].stage else decisions
        )


UNKNOWN_RULES = IncompleteRules()


@dataclass(frozen=True)
class BuiltRules:
    """A rule set as this program can build it; `lost` are the errors of the rules that it cannot build."""

    rules: RuleSet
    lost: tuple[HubError, ...] = ()


@dataclass
class _LoadedWorld:
    """A world, and the rules and sets that were read against it."""

    world: World
    rules: dict[str, Rule | HubError] = field(default_factory=dict)
    sets: dict[str, BuiltRules] = field(default_factory=dict)


class RuleBook:
    """Builds each rule set once and caches it. Not thread-safe."""

    def __init__(self, history: RuleTimeline, environ: Mapping[str, str]) -> None:
        self.history, self._environ = history, environ
        self._ready: OrderedDict[str, _LoadedWorld] = OrderedDict()
        self._reported: set[Sets] = set()

    def rules_of(self, sets: Sets | None) -> RuleSet | IncompleteRules:
        """The rules of these sets. A rule that cannot be built gives no commands and parks nothing; its error is logged once."""
        made = self.made(sets) if sets is not None else None
        if made is None:
            return UNKNOWN_RULES
        if made.lost and sets is not None and sets not in self._reported:
            self._reported.add(sets)
            for error in made.lost:
                log.error("rules.lost", **error.fields())
        return IncompleteRules(made.rules) if made.lost else made.rules

    def made(self, sets: Sets) -> BuiltRules | None:
        """A rule set; None for one whose announcement, people or calendar is not in the log."""
        announced = self.history.announced(sets)
        world = self._world(announced) if announced is not None else None
        if announced is None or world is None:
            return None
        found = world.sets.get(sets.ruleset)
        if found is None:
            found = world.sets[sets.ruleset] = self._made(announced, world)
        return found

    def _world(self, announced: Announced) -> _LoadedWorld | None:
        loaded = self._ready.get(announced.sets.world)
        if loaded is None:
            people, calendar = (self.history.world.get(value) for value in (announced.people, announced.calendar))
            if people is None or calendar is None:
                return None
            try:
                known = people_of(people)
                engine = engine_for(known, working_time_of(calendar))
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
                return None
            loaded = self._ready[announced.sets.world] = _LoadedWorld(World(engine, known, any_type=True))
            while len(self._ready) > MAX_CACHED_WORLDS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(announced.sets.world)
        return loaded

    def _made(self, announced: Announced, ready: _LoadedWorld) -> BuiltRules:
        rules, lost = list[Rule](), list[HubError]()
        for name, digest in sorted(announced.rules.items()):
            if digest not in ready.rules:
                ready.rules[digest] = self._rule(name, digest, ready.world)
            rule = ready.rules[digest]
            if isinstance(rule, HubError):
                lost.append(rule)
            else:
                rules.append(rule)
        people: PeopleDirectory = ready.world.people
        return BuiltRules(make_rule_set(rules, ready.world.engine, people), tuple(lost))

    def _rule(self, name: str, digest: str, world: World) -> Rule | HubError:
        rule_text = self.history.rules.get(digest)
        if rule_text is None:
            return FatalError("HUB-E3190", rule=name, digest=digest, reason="—")
        rule, errors = read_rule(parse_yaml(rule_text.text, rule_text.file, self._environ), world)
        if errors:
            return FatalError("HUB-E3190", place=errors[0].place, rule=name, digest=digest, reason=errors[0].message())
        if rule is None or rule.digest != digest:  # its ${env:…} has another value here
            return FatalError("HUB-E3190", rule=name, digest=digest, reason="${env:…}")
        return rule
