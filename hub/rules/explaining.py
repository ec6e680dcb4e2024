"""Why a rule answers an event, or does not: each rule that waits for its type, clause by clause. Pure; asks for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from hub.case import Case, Entity
from hub.errors import HubError, RejectedError
from hub.rules.case_reading import case_value
from hub.rules.documents import Json
from hub.rules.evaluation import Scope
from hub.rules.reading import tokens
from hub.rules.rule import Occasion, Rule, event_value
from hub.rules.rule_set import RuleSet
from hub.step import occurrence_of, opened_by
from schemas.event import Command
from schemas.recorded import AnyEvent

Outcome = Literal["asks", "shadow", "off", "repeat", "late", "others", "condition", "nothing", "failed"]
"""`repeat`: the entity is in that stage already, and the rule has asked; `late`: a later state is known; `others`: its departments
are not concerned; `condition`: it does not hold."""
OPENING, CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Clause:
    """One part of a condition that is joined by `&&`: whether it holds (None: it cannot be told) and what it read."""

    text: str
    holds: bool | None
    values: Mapping[str, Json]


@dataclass(frozen=True)
class Verdict:
    """What one rule makes of one event."""

    rule: Rule
    outcome: Outcome
    commands: tuple[Command, ...] = ()
    clauses: tuple[Clause, ...] = ()
    error: HubError | None = None


def explain(rules: RuleSet, case: Case | None, event: AnyEvent) -> list[Verdict]:
    """Every rule that waits for the event's type, in order. `case` is as it was before the event."""
    before = case or opened_by(event)
    after = before.with_entity(event)
    occurrence = occurrence_of(before, after, event)
    waiting, happened = [rule for rule in rules.rules if event.type in rule.when], event_value(event)
    scope = Scope({"event": happened, "case": case_value(after, waiting, happened)}, after.id)
    occasion = Occasion(event, occurrence or "", scope)
    entity = after.entities[event.subject]
    return [_verdict(rules, rule, occasion, entity, occurrence is None) for rule in waiting]


def _verdict(rules: RuleSet, rule: Rule, occasion: Occasion, entity: Entity, late: bool) -> Verdict:
    clauses = tuple(_clauses(rules, rule, occasion.scope))
    if rule.mode == "off":
        return Verdict(rule, "off", clauses=clauses)
    if late or rule.has_asked(entity, occasion.event):
        return Verdict(rule, "late" if late else "repeat", clauses=clauses)
    try:
        commands = tuple(rule.commands(occasion, rules.people, 0))
    except RejectedError as error:
        return Verdict(rule, "failed", clauses=clauses, error=error)
    if commands:
        return Verdict(rule, "asks" if rule.mode == "live" else "shadow", commands, clauses)
    if not all(clause.holds for clause in clauses):
        return Verdict(rule, "condition", clauses=clauses)
    return Verdict(rule, "nothing" if rule.concerns(occasion.event, rules.people) else "others", clauses=clauses)


def _clauses(rules: RuleSet, rule: Rule, scope: Scope) -> Iterator[Clause]:
    if rule.condition is None:
        return
    for text in parts(rule.condition.expression.text):
        expression = rules.engine.expression(text, ("event", "case"), rule.condition.expression.place)
        try:
            value = expression.value(scope)
        except RejectedError:
            value = None
        yield Clause(text, value if isinstance(value, bool) else None, expression.matched(scope))


def parts(text: str) -> list[str]:
    """A condition split at each `&&` that stands in no bracket; whole when an `||` or `?` stands beside one."""
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
