"""All rules of a home together: the commands that follow from an event."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hub.calendar import WorkingTime
from hub.config.yaml_places import Located
from hub.engine.case import Case
from hub.errors import FatalError, HubError, RejectedError
from hub.expressions.engine import Engine
from hub.expressions.expression import Scope
from hub.expressions.functions import Function
from hub.people import PeopleDirectory
from hub.rules.case_reading import case_value
from hub.rules.language import World, read_rule
from hub.rules.rule import Rule, RuleInput, event_value
from schemas.decoding import AnyEvent
from schemas.envelope import Command


class Decisions(NamedTuple):
    """The decisions of all rules on one event: commands to execute, and those that rules in shadow mode would have emitted.

    An error of a rule in shadow mode goes to `failed` and does not reject the event. `fired` are the rules that emitted
    commands in the entity's current stage: they do not fire again in it.
    """

    live: tuple[Command, ...] = ()
    shadow: tuple[Command, ...] = ()
    failed: tuple[RejectedError, ...] = ()
    fired: tuple[str, ...] = ()


NO_DECISIONS = Decisions()


@dataclass(frozen=True)
class RuleSet:
    """The rules, indexed by the event types they wait for. Immutable: a reload creates a new one."""

    engine: Engine
    people: PeopleDirectory = field(default_factory=PeopleDirectory)
    rules: tuple[Rule, ...] = ()
    _by_type: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)

    def commands_for(self, case: Case, event: AnyEvent, occurrence: str) -> Decisions:
        """What follows from `event`, which is folded into `case` already. Pure: the same input gives the same commands and ids.

        `occurrence` distinguishes this event from others of the same subject that may emit the same commands again; it is part of
        the ids.
        Raises RejectedError, with place, expression and rule, when a live rule fails.
        """
        rules = self._by_type.get(event.type)
        if not rules:
            return NO_DECISIONS
        happened = event_value(event)
        visible_case = case_value(case, rules, happened) if event.type in self._reading_case else {"id": case.id}
        occasion = RuleInput(event, occurrence, Scope({"event": happened, "case": visible_case}, case.id))
        entity = case.entities[event.subject]
        live, shadow, failed, fired = list[Command](), list[Command](), list[RejectedError](), list[str]()
        for rule in rules:
            if entity.fired and rule.has_fired(entity, event):
                continue
            count = len(live) + len(shadow)
            if rule.mode == "live":
                live += rule.commands(occasion, self.people, len(live))
            else:
                self._shadow(rule, occasion, shadow, failed)
            if len(live) + len(shadow) > count and rule.waits_in_stage(entity, event):
                fired.append(rule.first_name)
        return Decisions(tuple(live), tuple(shadow), tuple(failed), tuple(fired))

    @functools.cached_property
    def _reading_case(self) -> frozenset[str]:
        """Event types with a rule that reads the case."""
        return frozenset(type_ for type_, rules in self._by_type.items() if any(rule.case_reads for rule in rules))

    def digests(self) -> dict[str, str]:
        """The digest of each rule by its name."""
        return {rule.name: rule.digest for rule in self.rules}

    def _shadow(self, rule: Rule, occasion: RuleInput, made: list[Command], failed: list[RejectedError]) -> None:
        try:
            made += rule.commands(occasion, self.people, len(made))
        except RejectedError as error:
            failed.append(error)


def engine_for(people: PeopleDirectory, working_time: WorkingTime) -> Engine:
    """An engine with the functions available to rules; the context of its scopes is the case id."""
    functions = (
        Function("role", (("string",),), "string", lambda case_id, name: people.role(name, case_id)),
        Function("person", (("string",),), "map", lambda case_id, ref: people.person(ref)),
        Function("workdays", (("string", "int"), ("timestamp", "int")), "string", _workdays(working_time)),
    )
    return Engine(functions)


def rule_set(files: Iterable[Located], world: World) -> tuple[RuleSet, list[HubError]]:
    """The rules of these files, and every mistake in them. A file with a mistake adds no rule."""
    rules: dict[str, Rule] = {}
    errors: list[HubError] = []
    for located in files:
        rule, mistakes = read_rule(located, world)
        errors += mistakes
        if rule is None:
            continue
        other = rules.setdefault(rule.name, rule)
        if other is not rule:
            errors.append(FatalError("HUB-E3166", place=rule.place, name=rule.name, other=str(other.place)))
    errors += _taken_names(rules)
    return make_rule_set(rules.values(), world.engine, world.people), errors


def _taken_names(rules: Mapping[str, Rule]) -> Iterable[FatalError]:
    """Former names that another rule has, now or formerly: the two would derive the same command ids."""
    owners: dict[str, str] = {name: name for name in rules}
    for rule in rules.values():
        for name in rule.renamed_from:
            other = owners.setdefault(name, rule.name)
            if other != rule.name:
                yield FatalError("HUB-E3167", place=rule.place, name=name, other=other)


def make_rule_set(rules: Iterable[Rule], engine: Engine, people: PeopleDirectory) -> RuleSet:
    """Index rules by event type; they run in the order of their names."""
    ordered = tuple(sorted(rules, key=lambda rule: rule.name))
    by_type = defaultdict[str, list[Rule]](list)
    for rule in ordered:
        for type_ in rule.when if rule.mode != "off" else ():
            by_type[type_].append(rule)
    return RuleSet(engine, people, ordered, {type_: tuple(found) for type_, found in by_type.items()})


def _workdays(working_time: WorkingTime) -> Any:
    return lambda case_id, start, n: working_time.workdays(start, n)
