"""Rule sets made of the log's texts: what was in force then, and what another home has announced since."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from hub.case import UNKNOWN as ANY_RULE
from hub.case import Case
from hub.errors import FatalError, HubError
from hub.rules.history import Announced, History, Sets
from hub.rules.language import World, read_rule
from hub.rules.people import People
from hub.rules.places import parse_yaml
from hub.rules.rule import Rule
from hub.rules.rule_set import Decisions, RuleSet, engine_for, make_rule_set
from hub.rules.world_text import people_of, working_time_of
from schemas.recorded import AnyEvent

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

    def __init__(self, history: History, environ: Mapping[str, str]) -> None:
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
        people: People = ready.world.people
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
