"""Why a rule answers or does not: told clause by clause, and without asking for anything."""

from __future__ import annotations

import pytest

from hub.engine.step import step
from hub.rules.explaining import RuleOutcome, explain, split_condition
from tests.unit.hub.rules.homes import DEAL, HEAD, TASK, event, rules


def verdict(text: str) -> RuleOutcome:
    (found,) = explain(rules(text), None, event())
    return found


def test_a_rule_that_answers_shows_its_commands_and_what_it_read() -> None:
    found = verdict(HEAD + "if: double(event.data.amount) > 1.0 && event.data.currency == 'CNY'\n" + TASK)
    assert found.outcome == "asks"
    assert [command.type for command in found.commands] == ["task.create"]
    assert [(clause.text, clause.holds) for clause in found.clauses] == [
        ("double(event.data.amount) > 1.0", True),
        ("event.data.currency == 'CNY'", True),
    ]
    assert found.clauses[0].values == {"event.data.amount": "880000"}


def test_the_clause_that_does_not_hold_is_named() -> None:
    found = verdict(HEAD + "if: event.data.currency == 'USD' && double(event.data.amount) > 1.0\n" + TASK)
    assert (found.outcome, [clause.holds for clause in found.clauses]) == ("condition", [False, True])


def test_a_rule_that_fails_says_why() -> None:
    found = verdict(HEAD + "if: event.data.region == 'north'\n" + TASK)
    assert (found.outcome, found.error and found.error.code) == ("failed", "HUB-E3120")
    assert [clause.holds for clause in found.clauses] == [None]


@pytest.mark.parametrize(
    ("scope", "outcome"),
    [
        ("{mode: off}", "off"),
        ("{mode: shadow}", "shadow"),
        ("{departments: [delivery]}", "others"),
        ("{departments: [sales]}", "asks"),
    ],
)
def test_scope_is_a_reason_too(scope: str, outcome: str) -> None:
    assert verdict(HEAD + f"scope: {scope}\n" + TASK).outcome == outcome


def test_a_stage_that_is_entered_already_asks_for_nothing() -> None:
    found = rules(HEAD + TASK)
    before = step(None, event(), found).case
    assert [each.outcome for each in explain(found, before, event(id="e2"))] == ["repeat"]


def test_a_stage_that_the_rule_asked_nothing_in_is_open_for_it() -> None:
    found = rules(HEAD + "if: double(event.data.amount) > 900000.0\n" + TASK)
    before = step(None, event(), found).case
    more = event(id="e2", data={**DEAL, "amount": "990000"})
    assert [each.outcome for each in explain(found, before, more)] == ["asks"]


def test_news_of_a_stage_that_was_left_come_late() -> None:
    found = rules(HEAD + TASK)
    before = step(None, event(subjectversion="1"), found).case
    before = step(before, event("crm.opportunity.lost", id="e2", subjectversion="3"), found).case
    assert [each.outcome for each in explain(found, before, event(id="e3", subjectversion="2"))] == ["late"]


def test_a_type_that_no_rule_waits_for() -> None:
    assert explain(rules(HEAD + TASK), None, event("crm.opportunity.lost")) == []


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("a", ["a"]),
        ("a && b", ["a", "b"]),
        ("a&&b &&\n c", ["a", "b", "c"]),
        ("(a && b) && c", ["(a && b)", "c"]),
        ("x.all(y, y > 1 && y < 3) && z", ["x.all(y, y > 1 && y < 3)", "z"]),
        ("'&& && ' == a && b", ["'&& && ' == a", "b"]),
        ("a && b || c", ["a && b || c"]),
        ("a ? b && c : d", ["a ? b && c : d"]),
        ("(a || b) && c", ["(a || b)", "c"]),
    ],
)
def test_a_condition_is_split_where_each_part_must_hold(text: str, clauses: list[str]) -> None:
    assert split_condition(text) == clauses
