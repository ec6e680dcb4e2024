"""Rule sets made of the log's texts: what was in force then, and what another home has announced since.

What rules can read of people and of the calendar, as canonical text for the log, and read back from there.

Accounts are left out: no rule can read them. Of the calendar every working day of some decades is written down, since what a
country's holidays are said to be changes with the library that knows them.

What a home announces: the texts of its rules, people and calendar that the log lacks, then their names as one set.
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
from hub.engine.case import UNKNOWN as ANY_RULE
from hub.engine.case import Case
from hub.errors import FatalError, HubError
from hub.people import Department, PeopleDirectory, Person
from hub.rules.files import LoadedRules
from hub.rules.history import (
    ANNOUNCED,
    CHANGED,
    WORLD,
    Announced,
    RuleTimeline,
    Sets,
    parted,
    rule_event,
    ruleset_of,
    sha256,
    world_of,
)
from hub.rules.language import World, read_rule
from hub.rules.rule import Rule
from hub.rules.rule_set import Decisions, RuleSet, engine_for, make_rule_set
from schemas.decoding import AnyEvent
from schemas.domains.hub import RULES_CASE
from schemas.envelope import Event, derived_id

FIRST, LAST = 2010, 2040
"""Years whose working days are written down."""


def people_text(people: PeopleDirectory) -> str:
    """Departments with their liaisons; people with name, department and roles."""
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
    """The people of such a text; raises ValueError for another."""
    told = _object(text)
    departments = {
        name: Department.model_construct(name=None, liaison=each.get("liaison"))
        for name, each in told["departments"].items()
    }
    people = {
        name: Person(name=each["name"], department=each.get("department"), roles=tuple(each.get("roles", ())))
        for name, each in told["people"].items()
    }
    return PeopleDirectory(departments, people)


def calendar_text(working_time: WorkingTime) -> str:
    """Country, time zone, the home's own days, and of the country those days that are not what their weekday says."""
    odd = _odd_days(working_time.country)
    return _canonical(
        {
            "country": working_time.country,
            "timezone": working_time.timezone,
            "days": {day.isoformat(): works for day, works in working_time.days.items()},
            "odd": [day.isoformat() for day in odd],
            "years": [FIRST, LAST],
        }
    )


def working_time_of(text: str) -> WorkingTime:
    """The working days of such a text; raises ValueError for another."""
    told = _object(text)
    first, last = told["years"]
    days = {day: day.weekday() >= 5 for day in map(date.fromisoformat, told["odd"])}
    days |= {date.fromisoformat(day): bool(works) for day, works in told["days"].items()}
    return WorkingTime(str(told["country"]), str(told["timezone"]), days, range(int(first), int(last) + 1))


@functools.lru_cache(maxsize=8)
def _odd_days(country: str) -> tuple[date, ...]:
    """Working weekends and days off from Monday to Friday."""
    plain = WorkingTime(country, "UTC")
    days = (date(FIRST, 1, 1) + timedelta(days=at) for at in range((date(LAST + 1, 1, 1) - date(FIRST, 1, 1)).days))
    return tuple(day for day in days if plain.is_working(day) != (day.weekday() < 5))


def _canonical(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _object(text: str) -> dict[str, Any]:
    try:
        told = orjson.loads(text)
        if not isinstance(told, dict):
            raise ValueError("no object")
    except orjson.JSONDecodeError as error:
        raise ValueError(str(error)) from error
    return told


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
    def of(cls, read: LoadedRules, texts: Mapping[str, bytes]) -> Files:
        """The files as they were read, without a mistake."""
        rules = read.rules.digests()
        people, calendar = people_text(read.people), calendar_text(read.working_time)
        sets = Sets(ruleset_of(rules), world_of(sha256(people), sha256(calendar)))
        found = {
            rule.name: (rule.place.file, texts.get(rule.place.file, b"").decode("utf-8-sig", "replace"))
            for rule in read.rules.rules
        }
        return cls(sets, rules, found, people, calendar)


def announcement(files: Files, history: RuleTimeline, now: str, before: Mapping[int, int]) -> list[Event]:
    """The events that put these files in force, in their order. Made again with the same history, they have the same ids."""
    last = history.latest
    return [*_rules(files, last, history, now), *_world(files, history, now), _set(files, last, now, before)]


def _rules(files: Files, last: Announced | None, history: RuleTimeline, now: str) -> Iterator[Event]:
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


def _world(files: Files, history: RuleTimeline, now: str) -> Iterator[Event]:
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


WORLDS = 8
"""Worlds whose rules are kept ready."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Incomplete:
    """Rules of which some, or all, are not known any more: what is not known asks for nothing, and may have asked in any stage."""

    known: RuleSet | None = None

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        """What the known rules ask for."""
        found = self.known.commands_for(case, event, occurrence) if self.known is not None else Decisions()
        return found._replace(fired=(*found.fired, ANY_RULE)) if case.entities[event.subject].stage else found


UNKNOWN = Incomplete()


@dataclass(frozen=True)
class Made:
    """A rule set as it can be made here; `lost` says which of its rules cannot, and why."""

    rules: RuleSet
    lost: tuple[HubError, ...] = ()


@dataclass
class _Ready:
    """A world that rules are read against, and the rules that were."""

    world: World
    rules: dict[str, Rule | HubError] = field(default_factory=dict)
    sets: dict[str, Made] = field(default_factory=dict)


class RuleBook:
    """Makes each set once. For one thread at a time."""

    def __init__(self, history: RuleTimeline, environ: Mapping[str, str]) -> None:
        self.history, self._environ = history, environ
        self._ready: OrderedDict[str, _Ready] = OrderedDict()
        self._told: set[Sets] = set()

    def rules_of(self, sets: Sets | None) -> RuleSet | Incomplete:
        """The rules that judged then. One that cannot be made here asks for nothing and parks nothing; that is told once."""
        made = self.made(sets) if sets is not None else None
        if made is None:
            return UNKNOWN
        if made.lost and sets is not None and sets not in self._told:
            self._told.add(sets)
            for error in made.lost:
                log.error("rules.lost", **error.fields())
        return Incomplete(made.rules) if made.lost else made.rules

    def made(self, sets: Sets) -> Made | None:
        """A set; None for one whose announcement, people or calendar the log does not hold."""
        announced = self.history.announced(sets)
        ready = self._world(announced) if announced is not None else None
        if announced is None or ready is None:
            return None
        found = ready.sets.get(sets.ruleset)
        if found is None:
            found = ready.sets[sets.ruleset] = self._made(announced, ready)
        return found

    def _world(self, announced: Announced) -> _Ready | None:
        found = self._ready.get(announced.sets.world)
        if found is None:
            people, calendar = (self.history.world.get(value) for value in (announced.people, announced.calendar))
            if people is None or calendar is None:
                return None
            try:
                known = people_of(people)
                engine = engine_for(known, working_time_of(calendar))
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
                return None
            found = self._ready[announced.sets.world] = _Ready(World(engine, known, any_type=True))
            while len(self._ready) > WORLDS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(announced.sets.world)
        return found

    def _made(self, announced: Announced, ready: _Ready) -> Made:
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
        return Made(make_rule_set(rules, ready.world.engine, people), tuple(lost))

    def _rule(self, name: str, digest: str, world: World) -> Rule | HubError:
        found = self.history.rules.get(digest)
        if found is None:
            return FatalError("HUB-E3190", rule=name, digest=digest, reason="—")
        rule, errors = read_rule(parse_yaml(found.text, found.file, self._environ), world)
        if errors:
            return FatalError("HUB-E3190", place=errors[0].place, rule=name, digest=digest, reason=errors[0].message())
        if rule is None or rule.digest != digest:  # what stands in its ${env:…} is another here
            return FatalError("HUB-E3190", rule=name, digest=digest, reason="${env:…}")
        return rule
