"""Rules, people and events for the tests of rules: said in a few words."""

from __future__ import annotations

from typing import Any

from hub.calendar import WorkingTime
from hub.config.yaml_places import parse_yaml
from hub.errors import HubError
from hub.people import read_people
from hub.rules.language import World
from hub.rules.rule_set import RuleSet, engine_for, rule_set
from schemas.envelope import Event
from schemas.registry import event_spec

PEOPLE = """
departments:
  sales: {name: {zh: 销售部, en: Sales}}
  delivery: {name: {zh: 交付部, en: Delivery}}
people:
  wang.fang: {name: 王芳, department: sales, roles: [sales], accounts: {crm: U-3}}
  li.lei: {name: 李雷, department: delivery, roles: [lead], accounts: {crm: U-7, pm: "7"}}
"""
HEAD = "rule: won\ntitle: {zh: 赢, en: Won}\nowner: sales\nwhen: crm.opportunity.won\n"
TASK = 'do:\n  - task.create: {in: pm, title: "${event.data.name}"}\n'
DEAL = {"name": "网关", "account": "华为", "amount": "880000", "currency": "CNY", "owner": "person/wang.fang"}


def world(**fields: frozenset[str]) -> World:
    people, errors = read_people(parse_yaml(PEOPLE, "people.yaml", {}))
    assert errors == []
    engine = engine_for(people, WorkingTime("CN", "Asia/Shanghai"))
    return World(engine, people, {"pm", "im", "crm"}, fields)


def read(*texts: str) -> tuple[RuleSet, list[HubError]]:
    files = [parse_yaml(text, f"rules/{at}.yaml", {}) for at, text in enumerate(texts)]
    return rule_set(files, world())


def rules(*texts: str) -> RuleSet:
    found, errors = read(*texts)
    assert errors == []
    return found


def mistakes(text: str) -> list[tuple[str, int, int]]:
    return [
        (error.code, *((error.place.line, error.place.column) if error.place else (0, 0))) for error in read(text)[1]
    ]


def event(type_: str = "crm.opportunity.won", subject: str = "opportunity/crm/O-1", **told: Any) -> Event:
    time = "2026-11-20T02:00:00.000000Z"
    facts: dict[str, Any] = {
        "id": "e1", "source": "/connectors/crm", "type": type_, "subject": subject, "time": time, "recordedtime": time,
        "dataschema": event_spec(type_).dataschema, "partitionkey": subject, "correlationid": subject, "data": DEAL,
    }  # fmt: skip
    return Event(**{**facts, **told})
