"""Explains why a rule fires on an event or does not, clause by clause, and dry-runs events through the rules in memory.

Pure: it emits no commands, calls no outside system and stores nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from hub.config.strict_json import Json
from hub.config.validation import check, dotted
from hub.config.yaml_places import Located, read_yaml
from hub.config.yaml_places import Path as Keys
from hub.engine.case import Case, Entity
from hub.engine.step import EmitEvent, occurrence_of, opened_by, step
from hub.errors import FatalError, HubError, RejectedError
from hub.expressions.expression import Scope
from hub.expressions.reading import tokens
from hub.people import PeopleDirectory
from hub.rules.case_reading import case_value
from hub.rules.rule import Rule, RuleInput, event_value
from hub.rules.rule_set import RuleSet
from hub.rules.trial import MAX_EVENTS, Given, given_event
from schemas.decoding import AnyEvent
from schemas.envelope import Command, Event

Outcome = Literal["asks", "shadow", "off", "repeat", "late", "others", "condition", "nothing", "failed"]
"""`repeat`: the entity is in that stage already, and the rule has fired; `late`: a later state is known; `others`: its departments
are not concerned; `condition`: it is not true."""
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Clause:
    """One operand of a condition's `&&`: whether it is true (None: it failed to evaluate) and the values it read."""

    text: str
    holds: bool | None
    values: Mapping[str, Json]


@dataclass(frozen=True)
class RuleOutcome:
    """The outcome of one rule for one event."""

    rule: Rule
    outcome: Outcome
    commands: tuple[Command, ...] = ()
    clauses: tuple[Clause, ...] = ()
    error: HubError | None = None


def explain(rules: RuleSet, case: Case | None, event: AnyEvent) -> list[RuleOutcome]:
    """Every rule that waits for the event's type, in order. `case` is as it was before the event."""
    before = case or opened_by(event)
    after = before.with_entity(event)
    occurrence = occurrence_of(before, after, event)
    waiting, happened = [rule for rule in rules.rules if event.type in rule.when], event_value(event)
    scope = Scope({"event": happened, "case": case_value(after, waiting, happened)}, after.id)
    occasion = RuleInput(event, occurrence or "", scope)
    entity = after.entities[event.subject]
    return [_rule_outcome(rules, rule, occasion, entity, occurrence is None) for rule in waiting]


def _rule_outcome(rules: RuleSet, rule: Rule, occasion: RuleInput, entity: Entity, late: bool) -> RuleOutcome:
    clauses = tuple(_clauses(rules, rule, occasion.scope))
    if rule.mode == "off":
        return RuleOutcome(rule, "off", clauses=clauses)
    if late or rule.has_fired(entity, occasion.event):
        return RuleOutcome(rule, "late" if late else "repeat", clauses=clauses)
    try:
        commands = tuple(rule.commands(occasion, rules.people, 0))
    except RejectedError as error:
        return RuleOutcome(rule, "failed", clauses=clauses, error=error)
    if commands:
        return RuleOutcome(rule, "asks" if rule.mode == "live" else "shadow", commands, clauses)
    if not all(clause.holds for clause in clauses):
        return RuleOutcome(rule, "condition", clauses=clauses)
    return RuleOutcome(rule, "nothing" if rule.concerns(occasion.event, rules.people) else "others", clauses=clauses)


def _clauses(rules: RuleSet, rule: Rule, scope: Scope) -> Iterator[Clause]:
    if rule.condition is None:
        return
    for text in split_condition(rule.condition.expression.text):
        expression = rules.engine.expression(text, ("event", "case"), rule.condition.expression.place)
        try:
            value = expression.value(scope)
        except RejectedError:
            value = None
        yield Clause(text, value if isinstance(value, bool) else None, expression.matched(scope))


def split_condition(text: str) -> list[str]:
    """A condition split at each top-level `&&`; not split when there is a top-level `||` or `?`."""
    depth, cuts, signs = 0, [0], list(tokens(text))
    for index, token in enumerate(signs):
        if token.kind != "sign":
            continue
        depth += (token.text in OPENING) - (token.text in CLOSING)
        if depth == 0 and token.text in "|?":
            return [text]
        if depth == 0 and token.text == "&" and signs[index - 1].text != "&":
            cuts.append(token.at)
    return [text[start:end].removeprefix("&&").strip() for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


@dataclass(frozen=True)
class EventTrial:
    """One event, and the outcome of each rule that waits for its type."""

    event: Event
    outcomes: tuple[RuleOutcome, ...]


def fold_events(rules: RuleSet, events: Iterable[Event]) -> Case | None:
    """The case after folding these events; a rejected event changes nothing."""
    case: Case | None = None
    for event in events:
        try:
            case = step(case, event, rules).case
        except RejectedError:
            continue
    return case


def try_events(rules: RuleSet, events: Sequence[Event], case: Case | None = None) -> list[EventTrial]:
    """Dry-run events in order, including those that the hub derives from them. `case` is the first event's case before it."""
    cases = {case.id: case} if case is not None else {}
    waiting, tried = list(events), list[EventTrial]()
    for event in waiting[:MAX_EVENTS]:
        before = cases.get(event.case)
        if before is not None and before.has_seen(event):
            continue
        tried.append(EventTrial(event, tuple(explain(rules, before, event))))
        try:
            done = step(before, event, rules)
        except RejectedError:
            continue
        cases[event.case] = done.case
        waiting += [output.event for output in done.outputs if isinstance(output, EmitEvent)]
    return tried


def read_events(file: Path, people: PeopleDirectory, environ: Mapping[str, str]) -> list[Event]:
    """The events of a JSON or YAML file: one, a list, or under `given`; whole CloudEvents, or as short as in `*.test.yaml`.

    Raises FatalError with the place of the first mistake.
    """
    located = read_yaml(file, file.name, environ).sound()
    base: Keys = ("given",) if isinstance(located.value, dict) and "given" in located.value else ()
    value = located.value["given"] if base else located.value
    if not isinstance(value, list):
        return [_event(located, base, value, people, 0)]
    return [_event(located, (*base, at), each, people, at) for at, each in enumerate(value)]


def _event(located: Located, path: Keys, value: Any, people: PeopleDirectory, at: int) -> Event:
    try:
        if isinstance(value, dict) and "specversion" in value:
            return Event.model_validate(value)
        given, errors = check(Given, located, path, located.file)
        if given is None:
            raise min(
                errors, key=lambda error: error.code != "HUB-E3005"
            )  # a missing key is often present, but misspelt
        return given_event(given, people, at)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = (*path, *first["loc"])
        raise FatalError("HUB-E3184", place=located.place(where), field=dotted(where), reason=first["msg"]) from error
    except ValueError as error:
        raise FatalError("HUB-E3150", place=located.place((*path, "time")), time=value.get("time")) from error
