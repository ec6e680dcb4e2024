"""What follows from an event."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.engine.case import Case, from_json, to_json
from hub.engine.step import EmitCommand, EmitEvent, step
from hub.errors import RejectedError
from hub.rules.rule_set import Decisions, RuleSet
from schemas.envelope import Event, promise
from tests.unit.hub.rules.homes import DEAL, HEAD, TASK, event, rules

LINES = {**DEAL, "lines": [{"sku": "A", "qty": 1}, {"sku": "B", "qty": 0}, {"sku": "C", "qty": 2}]}
EACH = 'for each: {line: "${event.data.lines.filter(l, l.qty > 0)}", key: "${line.sku}"}\n'
EACH_TASK = 'do:\n  - task.create: {in: pm, title: "${line.sku}"}\n'


def decide(found: RuleSet, told: Event | None = None, occurrence: str = "won#1") -> Decisions:
    happened = told or event()
    case = Case(id=happened.case, opened_by=happened.subject).with_entity(happened)
    return found.commands_for(case, happened, occurrence)


def fails(text: str, told: Event | None = None) -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        decide(rules(text), told)
    return caught.value


def test_a_command_carries_why_it_was_made() -> None:
    found = rules(HEAD + 'if: double(event.data.amount) >= 100000.0 && has(event.data.owner)\n' + TASK)  # fmt: skip
    (command,) = decide(found).live
    assert (command.type, command.instance, command.arguments) == ("task.create", "pm", {"title": "网关"})
    assert (command.case, command.causationid, command.subject) == ("opportunity/crm/O-1", "e1", "opportunity/crm/O-1")
    assert (command.rule, command.digest, command.position) == ("won", found.digests()["won"], 0)
    assert command.title == {"zh-CN": "赢", "en": "Won"}
    assert command.matched == {
        "if": "double(event.data.amount) >= 100000.0 && has(event.data.owner)",
        "event.data.amount": "880000",
        "event.data.owner": "person/wang.fang",
    }


def test_a_rule_waits_for_its_types_and_its_condition() -> None:
    found = rules(HEAD + 'if: event.data.currency == "USD"\n' + TASK)
    assert decide(found) == Decisions()
    assert decide(found, event("crm.opportunity.lost")) == Decisions()
    assert len(decide(found, event(data={**DEAL, "currency": "USD"})).live) == 1


def test_a_promise_stands_for_the_result_of_an_earlier_command() -> None:
    text = (
        HEAD
        + 'do:\n  - project.create: {as: project, in: pm, name: a}\n  - task.create: {in: pm, title: b, project: "${project}"}\n'
    )
    project, task = decide(rules(text)).live
    assert task.arguments["project"] == promise(project.id)
    assert [project.position, task.position] == [0, 1]


def test_functions_know_the_case_and_the_calendar() -> None:
    text = HEAD + (
        "do:\n  - task.create: {in: pm, title: \"${person(role('lead')).name}\", assignee: \"${role('lead')}\","
        ' due: "${workdays(event.time, 2)}"}\n'
    )
    (command,) = decide(rules(text)).live
    assert command.arguments == {"title": "李雷", "assignee": "person/li.lei", "due": "2026-11-24"}


def test_the_case_is_seen_with_its_entities() -> None:
    text = HEAD + 'do:\n  - task.create: {in: pm, title: "${case.entities[case.opened_by].data.name}"}\n'
    assert decide(rules(text)).live[0].arguments == {"title": "网关"}


def test_ids_depend_on_what_happened_and_never_on_time_or_digest() -> None:
    (command,) = decide(rules(HEAD + TASK)).live
    late = event(id="e9", time="2027-01-01T00:00:00.000000Z", recordedtime="2027-01-01T00:00:00.000000Z")
    (again,) = decide(rules(HEAD + "if: 1 == 1\n" + TASK), late).live
    assert again.id == command.id
    assert again.digest != command.digest
    others = [
        decide(rules(HEAD + TASK), occurrence="won#2"),
        decide(rules(HEAD + TASK), event(subject="opportunity/crm/O-2")),
        decide(rules(HEAD.replace("won", "again", 1) + TASK)),
    ]
    assert len({command.id, *(each.live[0].id for each in others)}) == 4


@given(st.permutations([HEAD.replace("won", name, 1) + TASK for name in ("a", "b", "c")]))
def test_the_order_of_files_changes_nothing(texts: list[str]) -> None:
    commands = decide(rules(*texts)).live
    assert [(command.rule, command.position) for command in commands] == [("a", 0), ("b", 1), ("c", 2)]


def test_for_each_makes_commands_of_every_item_under_stable_ids() -> None:
    first = decide(rules(HEAD + EACH + EACH_TASK), event(data=LINES)).live
    assert [command.arguments["title"] for command in first] == ["A", "C"]
    assert [command.matched["for each"] for command in first] == ["A", "C"]
    turned = {**LINES, "lines": LINES["lines"][::-1]}
    again = decide(rules(HEAD + EACH + EACH_TASK), event(data=turned)).live
    assert {command.id: command.arguments for command in again} == {command.id: command.arguments for command in first}


def test_for_each_goes_by_position_without_a_key() -> None:
    text = HEAD + 'for each: {line: "${event.data.lines}"}\n' + EACH_TASK
    commands = decide(rules(text), event(data=LINES)).live
    assert len({command.id for command in commands}) == 3
    assert [command.position for command in commands] == [0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("no list", "HUB-E3170"),
        ([{"sku": "A"}, {"sku": "A"}], "HUB-E3171"),
        ([{"sku": None}], "HUB-E3170"),
        ([{"sku": str(n)} for n in range(1001)], "HUB-E3172"),
        ([{"sku": str(n)} for n in range(10_000)], "HUB-E3172"),
        ([{"suk": "A"}], "HUB-E3120"),
    ],
)
def test_for_each_refuses_what_has_no_stable_items(lines: object, code: str) -> None:
    text = HEAD + 'for each: {line: "${event.data.lines}", key: "${line.sku}"}\n' + EACH_TASK
    assert fails(text, event(data={**DEAL, "lines": lines})).code == code


def test_a_rule_that_fails_says_which_and_where() -> None:
    error = fails(HEAD + TASK, event(data={"nmae": "x"}))
    assert (error.code, error.seen["rule"], str(error.place)) == ("HUB-E3120", "won", "rules/0.yaml:6:48")
    assert error.seen["near"] == "nmae"


@pytest.mark.parametrize(("value", "code"), [(5, "HUB-E3173"), (None, "HUB-E3173"), ("x" * 250_000, "HUB-E3174")])
def test_an_argument_of_the_wrong_kind_or_size_is_refused(value: object, code: str) -> None:
    error = fails(HEAD + TASK, event(data={"name": value}))
    assert (error.code, error.seen["rule"]) == (code, "won")


def test_shadow_decides_apart_and_cannot_fail_an_event() -> None:
    shadow = HEAD.replace("won", "trial", 1) + "scope: {mode: shadow}\n"
    found = decide(rules(HEAD + TASK, shadow + TASK))
    assert [command.rule for command in found.live] == ["won"]
    assert [command.rule for command in found.shadow] == ["trial"]
    broken = decide(rules(HEAD + TASK, shadow + TASK.replace("name", "nope")))
    assert len(broken.live) == 1
    assert [error.code for error in broken.failed] == ["HUB-E3120"]


def test_a_rule_that_is_off_does_nothing() -> None:
    assert decide(rules(HEAD + "scope: {mode: off}\n" + TASK)) == Decisions()


def test_departments_narrow_a_rule_to_events_of_their_people() -> None:
    text = HEAD + "scope: {departments: [sales]}\n" + TASK
    assert len(decide(rules(text)).live) == 1
    assert decide(rules(text), event(data={**DEAL, "owner": "person/li.lei"})) == Decisions()
    assert len(decide(rules(text), event(data={**DEAL, "owner": None}, actor="person/wang.fang")).live) == 1


def asked_of(found: RuleSet, *events: Event, case: Case | None = None) -> list[list[str]]:
    """The ids of the commands that each event asks for, in turn."""
    made = []
    for each in events:
        done = step(case, each, found)
        case = done.case
        made.append([output.command.id for output in done.outputs if isinstance(output, EmitCommand)])
    return made


def dealt(version: str, type_: str = "crm.opportunity.won", /, **data: Any) -> Event:
    return event(type_, id=f"{type_}{version}", subjectversion=version, data={**DEAL, **data})


DEPARTMENT = HEAD + "scope: {departments: [sales]}\n" + TASK
REGION = HEAD + "if: has(event.data.region)\n" + TASK


@pytest.mark.parametrize(
    ("rule", "first", "then"),
    [
        (HEAD + "if: double(event.data.amount) > 1.0\n" + TASK, {"amount": "1"}, {}),
        (DEPARTMENT, {"owner": "account/crm/U-99"}, {}),
        (REGION, {}, {"region": "north"}),
        (HEAD + EACH + EACH_TASK, {"lines": []}, {"lines": LINES["lines"]}),
    ],
)
def test_a_stage_is_not_used_up_by_an_event_on_which_the_rule_asked_for_nothing(
    rule: str, first: dict[str, Any], then: dict[str, Any]
) -> None:
    found = rules(rule)
    before, now, after = asked_of(found, dealt("1", **first), dealt("2", **then), dealt("3", **then))
    assert (before, after) == ([], [])
    assert now == asked_of(found, dealt("1", **then))[0]


def test_each_rule_uses_a_stage_up_for_itself() -> None:
    other = REGION.replace("rule: won", "rule: region")
    found = rules(HEAD + TASK, other)
    first, second, third = asked_of(found, dealt("1"), dealt("2", region="north"), dealt("3", region="south"))
    assert (len(first), len(second), len(third)) == (1, 1, 0)
    assert first != second


def test_a_rule_in_shadow_mode_leaves_one_trace_a_stage_and_is_not_caught_up_when_it_goes_live() -> None:
    shadow = rules(HEAD + "scope: {mode: shadow}\n" + TASK)
    first = step(None, dealt("1"), shadow)
    second = step(first.case, dealt("2"), shadow)
    traces = [[output for output in done.outputs if isinstance(output, EmitEvent)] for done in (first, second)]
    assert [len(each) for each in traces] == [1, 0]
    assert asked_of(rules(HEAD + TASK), dealt("3"), case=second.case) == [[]]


def test_an_event_that_parks_uses_nothing_up() -> None:
    good, bad = HEAD + TASK, HEAD.replace("rule: won", "rule: z") + 'if: event.data.region == "north"\n' + TASK
    before = step(None, dealt("1", "crm.opportunity.created"), rules(good)).case
    with pytest.raises(RejectedError):
        step(before, dealt("2"), rules(good, bad))
    assert [len(ids) for ids in asked_of(rules(good), dealt("2"), dealt("3"), case=before)] == [1, 0]


def test_a_rule_that_has_asked_cannot_fail_on_what_comes_after() -> None:
    found = rules(HEAD + "if: event.data.region == 'north'\n" + TASK)
    assert [len(ids) for ids in asked_of(found, dealt("1", region="north"), dealt("2"))] == [1, 0]


def old(case: Case, offset: int = 3) -> Case:
    """The case as a version before this one kept it: without a word of what had asked."""
    told = {"offset": offset, "case": msgspec.json.decode(to_json(case, offset))["case"]}
    for entity in told["case"]["entities"].values():
        entity.pop("fired", None)
    return from_json(msgspec.json.encode(told))[0]


def test_what_a_state_of_before_has_asked_for_is_asked_for_under_the_same_ids() -> None:
    found = rules(HEAD + TASK)
    first, case = asked_of(found, dealt("1")), step(None, dealt("1"), found).case
    assert asked_of(found, dealt("2"), dealt("3"), case=old(case)) == [first[0], []]


@pytest.mark.parametrize(
    "rule",
    [
        HEAD.replace("crm.opportunity.won", "[crm.opportunity.won, crm.opportunity.changed]") + TASK,
        HEAD + EACH + EACH_TASK,
    ],
)
def test_what_may_have_been_asked_for_under_other_ids_is_left(rule: str) -> None:
    found = rules(rule)
    case = step(None, dealt("1", lines=[]), rules()).case
    assert asked_of(found, dealt("2", **LINES), case=old(case)) == [[]]
    lost = dealt("3", "crm.opportunity.lost")
    assert asked_of(found, lost, dealt("4", **LINES), case=old(case))[1] != []
