"""What is told of a rule before any event comes."""

from __future__ import annotations

import pytest

from hub.errors import HubError
from hub.rules.lint import lint, sample
from hub.rules.places import parse_yaml
from hub.rules.rule_set import rule_set
from schemas.catalog import EVENTS
from tests.unit.hub.rules.homes import HEAD, TASK, world


def warnings(text: str, **fields: frozenset[str]) -> list[HubError]:
    here = world(**fields)
    found, errors = rule_set([parse_yaml(text, "rules/won.yaml", {})], here)
    assert errors == []
    return lint(found, here)


def test_a_misspelt_field_is_found_with_what_was_meant() -> None:
    (found,) = warnings(HEAD + "if: double(event.data.amout) > 1.0\n" + TASK)
    assert (found.code, str(found.place), found.seen["near"]) == ("HUB-W3120", "rules/won.yaml:5:23", "amount")
    assert "'amout'" in found.message("zh-CN")
    (asked,) = warnings(HEAD + "if: has(event.data.amout)\n" + TASK)
    assert asked.code == "HUB-W3120"


def test_fields_of_the_home_are_known() -> None:
    text = HEAD + 'if: event.data.region == "华东"\n' + TASK
    assert [error.code for error in warnings(text)] == ["HUB-W3120"]
    assert warnings(text, **{"crm.opportunity.won": frozenset({"region"})}) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (HEAD + "if: event.data.amount >= 100000\n" + TASK, "HUB-E3121"),
        (HEAD + "if: event.data.name\n" + TASK, "HUB-E3122"),
        (HEAD + TASK.replace("event.data.name", "role('leed')"), "HUB-E3140"),
        (HEAD + TASK.replace("event.data.name", "decimal(event.data.name)"), "HUB-E3126"),
    ],
)
def test_what_fails_on_a_sample_is_told(text: str, code: str) -> None:
    assert [error.code for error in warnings(text)] == [code]


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
    assert warnings(text) == []


@pytest.mark.parametrize("type_", sorted(EVENTS))
def test_a_sample_is_an_event_that_may_come(type_: str) -> None:
    EVENTS[type_].model.model_validate(sample(type_, world()))
