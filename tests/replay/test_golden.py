"""An upgrade under load, with an old log: every version's events and states come to what they came to then, under the same ids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import Field

from hub.engine.case import Case, replace
from hub.engine.step import StepRules
from hub.log.event_log import Record
from schemas import registry
from schemas.domains.crm import Opportunity
from schemas.envelope import Event
from schemas.registry import EVENTS, EventSpec
from tests.events import event
from tests.replay import golden_log
from tests.replay.golden_log import HOME, Replay, expected, load, plain, rules, states, versions

WON = "crm.opportunity.won"


@pytest.fixture(scope="module")
def frozen() -> StepRules:
    return rules()


def test_there_is_a_log_of_each_version_of_each_type() -> None:
    told = {Event.from_json(record.value or b"").dataschema for version in versions() for record in load(version)}
    older = {f"urn:hub:{spec.type}:{n}" for spec in EVENTS.values() for n in range(1, spec.version)}
    assert told >= older
    assert len(told) >= 40


@pytest.mark.parametrize("version", versions())
def test_an_old_log_comes_to_what_it_came_to_then(version: str, frozen: StepRules) -> None:
    assert plain(Replay().run(load(version), frozen).as_value()) == expected(version)


@pytest.mark.parametrize("version", versions())
def test_old_state_is_taken_over_in_the_middle_of_a_log(version: str, frozen: StepRules) -> None:
    log = load(version)
    cases, at = states(version)
    rest = Replay(cases=dict(cases)).run(log[at:], frozen)
    whole = Replay().run(log, frozen)
    # A push that matched nothing opened a case then, and opens none now.
    kept = {key: case for key, case in rest.cases.items() if not key.startswith(b"delivery/")}
    assert {key: _unfired(case) for key, case in kept.items()} == {
        key: _unfired(case) for key, case in whole.cases.items()
    }
    first = Replay().run(log[:at], frozen)
    assert first.commands.keys() | rest.commands.keys() == expected(version)["commands"].keys()
    assert not first.commands.keys() & rest.commands.keys()


def _unfired(case: Case) -> Case:
    """Without what old states do not say: which rules had asked, and what it takes to forget a case."""
    entities = {ref: replace(entity, fired={}) for ref, entity in case.entities.items()}
    return replace(case, entities=entities, alive=0, ended=0, due=0, spans=None)


class Renamed(Opportunity):
    """Version 2 of a won deal, in these tests: the account is called customer, and each has a segment."""

    customer: str = Field(description="the customer's name")


def _lift(data: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in data.items() if name != "account"}
    return {"segment": "unknown", **rest, "customer": data.get("account", "")}


SECOND = EventSpec(WON, Renamed, "won", version=2, upcasters={1: _lift})


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StepRules:
    """The catalogue and the rules of the next release."""
    return upgrade(monkeypatch, tmp_path)


def upgrade(monkeypatch: pytest.MonkeyPatch, folder: Path) -> StepRules:
    monkeypatch.setattr(registry, "EVENTS", {**EVENTS, WON: SECOND})
    home = folder / "home"
    shutil.copytree(HOME, home)
    rule = home / "rules" / "won_deal.yaml"
    rule.write_text(rule.read_text("utf-8").replace("event.data.account", "event.data.customer"), "utf-8")
    return golden_log.rules(home)


def by_new_writer(record: Record) -> Record:
    """The same event as a program of the next release writes it."""
    told = orjson.loads(record.value or b"")
    if told["type"] == WON:
        told = {**told, "dataschema": SECOND.dataschema, "data": _lift(told["data"])}
    return record._replace(value=orjson.dumps(told))


@pytest.mark.parametrize("new", ["none", "all", "every other", "the second half"])
def test_old_and_new_writers_mixed_ask_for_the_same_under_the_same_ids(upgraded: StepRules, new: str) -> None:
    log = load("v1")
    chosen = {"none": [], "all": log, "every other": log[::2], "the second half": log[len(log) // 2 :]}[new]
    mixed = [by_new_writer(record) if record in chosen else record for record in log]
    made = plain(Replay().run(mixed, upgraded).as_value())
    assert made["commands"] == expected("v1")["commands"]
    assert made["parked"] == expected("v1")["parked"]


def test_state_of_the_old_release_goes_on_under_the_new_one(upgraded: StepRules) -> None:
    log = load("v1")
    cases, at = states("v1")
    rest = Replay(cases=dict(cases)).run(map(by_new_writer, log[at:]), upgraded)
    done = Replay().run(log[:at], upgraded)
    assert done.commands.keys() | rest.commands.keys() == expected("v1")["commands"].keys()


def test_after_a_rollback_what_the_old_release_cannot_read_waits_and_is_done_by_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frozen: StepRules
) -> None:
    """New writers were at work for the second half; then the old release is back, and meets their events."""
    log = load("v1")
    half = len(log) // 2
    mixed = [*log[:half], *map(by_new_writer, log[half:])]
    back = Replay().run(mixed, frozen)
    new_ones = {ref for ref in back.parked if ref not in expected("v1")["parked"]}
    assert new_ones  # nothing is guessed, nothing passed over
    assert back.commands.keys() < expected("v1")["commands"].keys()

    new_rules = upgrade(monkeypatch, tmp_path)
    cases = [case for case in back.cases.values() if case.held]
    for n, case in enumerate(cases):
        asks = event("hub.parked.retried", case.id, id=f"retry-{n}", data={"parked": case.held[0].event})
        record = Record("hub.events", 0, len(mixed) + n, case.id.encode(), asks.to_json())
        back.run([record], new_rules, bodies=mixed)
    assert back.commands.keys() == expected("v1")["commands"].keys()
    assert {ref for case in back.cases.values() for ref in (f"event/{held.event}" for held in case.held)} <= set(
        expected("v1")["parked"]
    )
