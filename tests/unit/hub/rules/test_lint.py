"""What is told of a rule before any event comes."""

from __future__ import annotations

import pytest

from hub.config.yaml_places import parse_yaml
from hub.errors import HubError
from hub.rules.lint import Lint, lint, sample, without_account
from hub.rules.rule_set import rule_set
from schemas.registry import EVENTS
from tests.unit.hub.rules.homes import HEAD, TASK, world


def linted(text: str, **fields: frozenset[str]) -> Lint:
    here = world(**fields)
    found, errors = rule_set([parse_yaml(text, "rules/won.yaml", {})], here)
    assert errors == []
    return lint(found, here)


def codes(found: list[HubError]) -> list[str]:
    return [error.code for error in found]


def test_a_misspelt_field_is_an_error_with_what_was_meant() -> None:
    found = linted(HEAD + "if: double(event.data.amout) > 1.0\n" + TASK)
    (error,) = found.errors
    assert (error.code, str(error.place), error.seen["near"]) == ("HUB-E3120", "rules/won.yaml:5:23", "amount")
    assert "event.data.amout" in error.message("zh-CN")
    assert found.warnings == []


def test_a_misspelt_field_that_is_asked_for_or_not_always_read_is_a_warning() -> None:
    for condition in ("has(event.data.amout)", "event.data.currency == 'XXX' && double(event.data.amout) > 1.0"):
        found = linted(HEAD + f"if: {condition}\n" + TASK)
        assert (codes(found.errors), codes(found.warnings)) == ([], ["HUB-W3120"])


def test_a_condition_may_keep_what_would_fail_from_being_read() -> None:
    text = TASK.replace("event.data.name", "event.data.discount")
    for condition in ("has(event.data.discount)", "event.data.currency == 'XXX'"):
        found = linted(HEAD + f"if: {condition}\n" + text)
        assert (codes(found.errors), set(codes(found.warnings))) == ([], {"HUB-W3120"})
    for condition in ("double(event.data.amount) >= 100000.0", "double(event.data.amount) < 5000.0"):
        assert codes(linted(HEAD + f"if: {condition}\n" + text).errors) == ["HUB-E3120"]
    assert codes(
        linted(HEAD + "if: event.data.currency == 'XXX'\n" + TASK.replace("event.data.name", "role('leed')")).errors
    ) == ["HUB-E3140"]


def test_a_person_that_the_rule_itself_writes_must_be_known() -> None:
    task = TASK.replace('title: "${event.data.name}"', "title: x, assignee: person/li.le")
    (error,) = linted(HEAD + task).errors
    assert (error.code, error.seen["person"], error.fix("en")) == (
        "HUB-E3142",
        "person/li.le",
        "add them to people.yaml; did you mean li.lei?",
    )
    assert linted(HEAD + task.replace("li.le}", "li.lei}")).errors == []


def test_fields_of_the_home_are_known() -> None:
    text = HEAD + 'if: event.data.region == "华东"\n' + TASK
    assert codes(linted(text).errors) == ["HUB-E3120"]
    found = linted(text, **{"crm.opportunity.won": frozenset({"region"})})
    assert (found.errors, found.warnings) == ([], [])


@pytest.mark.parametrize(
    "condition",
    ["event.data.score > 3", "event.data.score", "event.data.score.startsWith('A')", "event.data.lines[0].sku == 'A'"],
)
def test_of_a_field_of_the_home_no_type_is_known(condition: str) -> None:
    fields = {
        "crm.opportunity.won": frozenset({"score", "lines"}),
        "crm.lead.met": frozenset({"name", "score", "lines"}),
    }
    for head in (HEAD, HEAD.replace("crm.opportunity.won", "crm.lead.met")):
        found = linted(head + f"if: {condition}\n" + TASK, **fields)
        assert (found.errors, found.warnings) == ([], [])


def test_a_field_that_a_type_of_the_home_lacks() -> None:
    text = HEAD.replace("crm.opportunity.won", "crm.lead.met") + TASK
    assert codes(linted(text, **{"crm.lead.met": frozenset({"title"})}).errors) == ["HUB-E3120"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "if: event.data.amount >= 100000\n" + TASK, "HUB-E3121"),
        (HEAD + "if: event.data.name\n" + TASK, "HUB-E3122"),
        (HEAD + TASK.replace("event.data.name", "role('leed')"), "HUB-E3140"),
        (HEAD + TASK.replace("event.data.name", "person('person/nobody').name"), "HUB-E3142"),
        (HEAD + TASK.replace("event.data.name", "workdays('2026-11-20', 2)"), "HUB-E3150"),
        (HEAD + TASK.replace("event.data.name", "string(1 / 0)"), "HUB-E3121"),
        (HEAD + TASK.replace("event.data.name", "event.data.nane"), "HUB-E3120"),
        (HEAD + TASK.replace("${event.data.name}", "deal ${event.data.nane}"), "HUB-E3120"),
        (HEAD + TASK.replace("${event.data.name}", "by ${event.data}"), "HUB-E3125"),
    ],
)
def test_what_fails_on_every_sample_is_an_error(text: str, code: str) -> None:
    assert codes(linted(text).errors) == [code]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + TASK.replace("event.data.name", "decimal(event.data.name)"), "HUB-E3126"),
        (HEAD + TASK.replace("event.data.name", "role(event.data.name)"), "HUB-E3140"),
        (HEAD + TASK.replace("${event.data.name}", "by ${event.actor}"), "HUB-E3125"),
        (HEAD.replace("crm.opportunity.won", "erp.stock.ran_low") + "if: event.data.quantity < 3\n" + TASK.replace("name", "item"),
         "HUB-E3121"),
        (HEAD.replace("crm.opportunity.won", "[crm.opportunity.won, crm.complaint.filed]") + "if: event.data.severity > 3\n"
         + TASK.replace("event.data.name", "event.type"), "HUB-E3120"),
    ],
)  # fmt: skip
def test_what_fails_on_some_samples_is_a_warning(text: str, code: str) -> None:
    found = linted(text)
    assert (codes(found.errors), code in codes(found.warnings)) == ([], True)


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "if: double(event.data.amount) >= 1.0 && event.data.owner == 'person/wang.fang'\n" + TASK,
        HEAD + TASK.replace("event.data.name", "case.entities[case.opened_by].data.name"),
        HEAD + TASK.replace("event.data.name", "case.entities['opportunity/crm/O-7'].data.name"),
        HEAD.replace("crm.opportunity.won", "crm.complaint.filed")
        + "if: event.data.severity >= 3\n"
        + TASK.replace("name", "customer"),
        HEAD.replace("crm.opportunity.won", "erp.stock.ran_low")
        + TASK.replace("event.data.name", "string(event.data.quantity)"),
    ],
)
def test_sound_rules_are_not_warned_of(text: str) -> None:
    found = linted(text)
    assert (found.errors, found.warnings) == ([], [])


def test_items_of_a_list_are_tried_too() -> None:
    each = "for each: {line: \"${[{'sku': 'A'}]}\"}\n"
    assert codes(linted(HEAD + each + TASK.replace("event.data.name", "line.skuu")).errors) == []
    assert codes(linted(HEAD + each + TASK.replace("event.data.name", "line.sku + string(1)")).errors) == []


def test_people_that_a_rule_names_have_accounts_where_they_are_named() -> None:
    text = HEAD + "do:\n  - task.create: {in: im, title: A, assignee: \"${role('lead')}\"}\n"
    here = world()
    found, _ = rule_set([parse_yaml(text, "rules/won.yaml", {})], here)
    (error,) = without_account(found, here.people, {"im", "pm"})
    assert (error.code, error.seen["person"], str(error.place)) == ("HUB-W3143", "person/li.lei", "rules/won.yaml:6:5")
    assert list(without_account(found, here.people, {"pm"})) == []


@pytest.mark.parametrize("type_", sorted(EVENTS))
def test_a_sample_is_an_event_that_may_come(type_: str) -> None:
    EVENTS[type_].model.model_validate(sample(type_, world()))


@pytest.mark.parametrize(
    "text", ["$｛event.data.name｝", "＄{event.data.name}", "＄｛event.data.name｝", "立项 $｛event.data.name}"]
)
def test_full_width_signs_get_a_hint(text: str) -> None:
    found = linted(HEAD + TASK.replace("${event.data.name}", text))
    (warning,) = found.warnings
    assert (found.errors, warning.code) == ([], "HUB-W3117")
    assert "${event.data.name}" in warning.fix("zh-CN")


@pytest.mark.parametrize("text", ["$100 {a}", "｛a｝", "$ ｛a｝", "${event.data.name}"])
def test_other_braces_get_none(text: str) -> None:
    assert linted(HEAD + TASK.replace("${event.data.name}", text)).warnings == []
