"""The catalogue: every type is there whole, old versions are lifted, and what is exported is JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from hub.engine.parking import lifted
from hub.errors import RejectedError
from schemas import decoding, registry
from schemas.domains.crm import Opportunity
from schemas.fields import Amount, Currency, Data, Day
from schemas.registry import COMMANDS, EVENTS, CommandSpec, EventSpec, event_spec, json_schema
from tests.events import DEAL, event

SPECS: dict[str, EventSpec | CommandSpec] = {**EVENTS, **COMMANDS}
FIRST_VOCABULARY = """
crm.opportunity.created crm.opportunity.changed crm.opportunity.won crm.opportunity.lost crm.opportunity.reopened
crm.account.changed crm.complaint.filed erp.order.confirmed erp.order.shipped erp.stock.changed erp.stock.ran_low
erp.invoice.issued erp.invoice.paid erp.expense.booked im.message.posted im.card.answered
work.project.created work.project.completed work.task.requested work.task.created work.task.assigned work.task.accepted
work.task.started work.task.completed work.task.reopened work.task.cancelled work.task.overdue
desk.approval.requested desk.approval.granted desk.approval.rejected desk.feedback.given
hub.timer.fired hub.rule.changed hub.rule.suspended hub.connector.paused hub.connector.resumed hub.connector.silent
hub.command.done hub.command.failed hub.command.parked
project.create task.create task.update message.send card.update record.update finance.post approval.request timer.set
"""


def test_the_first_vocabulary_is_there() -> None:
    assert set(FIRST_VOCABULARY.split()) <= set(SPECS)
    for subject in ("desk.demand.", "desk.change."):
        assert any(name.startswith(subject) for name in EVENTS)


@pytest.mark.parametrize("name", SPECS)
def test_every_type_says_what_it_and_each_of_its_fields_is(name: str) -> None:
    schema = json_schema(name)
    assert schema["description"].endswith((".", "`"))
    assert schema["properties"]
    for field, told in schema["properties"].items():
        assert _is_described(told), f"{name}: {field} has no description"


def _is_described(told: dict[str, Any]) -> bool:
    return "description" in told or "$ref" in told or any(_is_described(one) for one in told.get("anyOf", ()))


@pytest.mark.parametrize("name", SPECS)
def test_every_export_is_json_schema_with_a_name_of_its_own(name: str) -> None:
    schema = json_schema(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:hub:{name}:{getattr(SPECS[name], 'version', 1)}"
    assert orjson.loads(orjson.dumps(schema)) == schema
    for part in _parts(schema):
        _is_sound(part, schema)


KEYWORDS = {
    *("$schema", "$id", "$defs", "$ref", "title", "description", "default", "type", "properties", "required", "items"),
    *("additionalProperties", "anyOf", "enum", "const", "format", "pattern"),
    *("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems"),
}
TYPES = {"object", "array", "string", "integer", "number", "boolean", "null"}


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and every schema in it."""
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", ())]
    inner += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    for part in inner:
        yield from _parts(part)


def _is_sound(part: dict[str, Any], whole: dict[str, Any]) -> None:
    assert set(part) <= KEYWORDS, set(part) - KEYWORDS
    assert part.get("type", "object") in TYPES
    assert set(part.get("required", ())) <= set(part.get("properties", {}))
    if "pattern" in part:
        re.compile(part["pattern"])
    if "$ref" in part:
        assert part["$ref"].removeprefix("#/$defs/") in whole["$defs"]


def test_an_unknown_type_has_no_schema_and_is_an_occurrence_with_free_data() -> None:
    with pytest.raises(KeyError):
        json_schema("acme.machine.broke")
    spec = event_spec("acme.machine.broke")
    assert (spec.stage, spec.model, spec.dataschema) == (None, Data, "urn:hub:acme.machine.broke:1")


@pytest.mark.parametrize("spec", EVENTS.values(), ids=EVENTS)
def test_every_older_version_can_be_lifted(spec: EventSpec) -> None:
    assert set(spec.upcasters) == set(range(1, spec.version))


class OpportunityThen(Opportunity):
    """How it is told now, in this test: the amount has its currency beside it, and the account is called customer."""

    customer: str = Field(description="the customer's name")


def _renamed(data: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in data.items() if key != "client"}, "account": data.get("client", "")}


def _in_yuan(data: dict[str, Any]) -> dict[str, Any]:
    return {"currency": "CNY", **data}


THIRD = EventSpec("crm.opportunity.won", Opportunity, "won", version=3, upcasters={1: _renamed, 2: _in_yuan})


def test_data_is_lifted_step_by_step_from_whatever_version_it_has() -> None:
    first = {"name": "A", "client": "华为", "amount": "1"}
    assert THIRD.lift(dict(first), 1) == {"name": "A", "account": "华为", "amount": "1", "currency": "CNY"}
    assert THIRD.lift({"name": "A", "account": "B", "amount": "1"}, 2)["currency"] == "CNY"
    assert THIRD.lift(dict(DEAL), 3) == DEAL
    assert THIRD.lift({"newer": 1}, 4) == {"newer": 1}
    Opportunity.model_validate(THIRD.lift(dict(first), 1))


def test_the_processor_reads_an_old_event_as_the_current_version_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "EVENTS", {**EVENTS, THIRD.type: THIRD})
    old = event(THIRD.type, "opportunity/crm/O-1", dataschema="urn:hub:crm.opportunity.won:1", data={"client": "华为"})
    read = lifted(decoding.read(old.to_json()))
    assert (read.dataschema, dict(read.data)) == (THIRD.dataschema, {"account": "华为", "currency": "CNY"})
    assert read.id == old.id


def test_an_upcaster_that_fails_parks_the_event_with_its_type_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EventSpec(THIRD.type, Opportunity, "won", version=2, upcasters={1: lambda data: {"name": data["missing"]}})
    monkeypatch.setattr(registry, "EVENTS", {**EVENTS, broken.type: broken})
    with pytest.raises(RejectedError, match="HUB-E6004") as refused:
        lifted(
            decoding.read(
                event(broken.type, "opportunity/crm/O-1", dataschema="urn:hub:crm.opportunity.won:1").to_json()
            )
        )
    assert refused.value.seen["version"] == "1"


MONEY = TypeAdapter(Amount)


@pytest.mark.parametrize("amount", ["0", "-5.00", "880000", "99999.99", "12345678901234567890.0123456789"])
def test_money_is_plain_decimal_text(amount: str) -> None:
    assert MONEY.validate_python(amount) == amount


@pytest.mark.parametrize(
    "amount",
    [
        "",
        "-",
        ".5",
        "5.",
        "+1",
        "1e5",
        "1,000",
        "NaN",
        "inf",
        " 1",
        "1 ",
        "1\n",
        "１２",
        "٣",
        "0x1",
        "1.2.3",
        "1" * 21,
        1.5,
        1,
    ],
)
def test_money_is_nothing_else(amount: object) -> None:
    with pytest.raises(ValidationError):
        MONEY.validate_python(amount)


@pytest.mark.parametrize(
    ("type_", "wrong"),
    [
        (Currency, "cny"),
        (Currency, "CNYY"),
        (Currency, "ＣＮＹ"),
        (Day, "2026-1-2"),
        (Day, "２０２６-01-02"),
        (Day, "20260102"),
    ],
)
def test_currencies_and_days_have_one_form(type_: Any, wrong: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(type_).validate_python(wrong)


def test_data_keeps_fields_of_the_user_s_own_and_never_changes() -> None:
    deal = Opportunity.model_validate({**DEAL, "region": "华东"})
    assert deal.model_dump()["region"] == "华东"
    with pytest.raises(ValidationError, match="frozen"):
        deal.name = "other"


@pytest.mark.parametrize("spec", [spec for spec in COMMANDS.values() if spec.creates], ids=lambda spec: spec.type)
def test_a_command_that_makes_something_ends_in_an_event_of_its_making(spec: CommandSpec) -> None:
    assert spec.result == f"work.{spec.creates}.created"
    assert spec.result in EVENTS


def test_stages_that_open_are_no_step_back() -> None:
    assert {spec.type for spec in EVENTS.values() if spec.opens} >= {"crm.opportunity.created", "work.task.created"}
    assert not event_spec("crm.opportunity.reopened").opens
    assert event_spec("crm.opportunity.changed").stage is None
