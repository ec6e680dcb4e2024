"""What happens in the company of a history: its deals and complaints as they are told, and the rules that answer them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random

from hub.config.yaml_places import parse_yaml
from hub.kit.connector import Fact
from hub.rules.rule_set import RuleSet, rule_set
from tests.simulation.chance import START
from tests.simulation.systems import Pushed, push
from tests.unit.hub.rules import homes

HEAD = "title: {zh: 甲, en: A}\nowner: sales\n"
WON = (
    "rule: won\n" + HEAD + "when: crm.opportunity.won\nif: double(event.data.amount) >= 100000.0\ndo:\n"
    '  - project.create: {as: project, in: pm, name: "${event.data.name}"}\n'
    '  - task.create: {in: pm, project: "${project}", title: one}\n'
    '  - task.create: {in: pm, project: "${project}", title: two}\n'
    '  - message.send: {in: im, to: "${role(\'lead\')}", text: "${event.data.name}"}\n'
)
DONE = (
    "rule: done\n" + HEAD + "when: work.project.completed\ndo:\n"
    '  - record.update: {in: erp, record: "${event.subject}", fields: {done: "yes"}}\n'
)
COMPLAINT = (
    "rule: complaint\n" + HEAD + "when: crm.complaint.filed\nif: %s\ndo:\n"
    '  - task.create: {in: pm, project: "", title: "${event.data.customer}"}\n'
)
BROKEN, MENDED = "100 / event.data.severity > 20", "event.data.severity == 0 || 100 / event.data.severity > 20"
LOW = (
    "rule: low\n" + HEAD + "when: erp.stock.ran_low\ndo:\n"
    '  - task.create: {in: pm, project: "", title: "${event.data.item}"}\n'
)
DEAL = {"name": "网关", "account": "华为", "amount": "880000", "currency": "CNY", "owner": "U-3"}
LIFE = ("created", "changed", "won", "lost", "reopened", "won", "changed")


def rules(mended: bool) -> RuleSet:
    """The rules; one of them fails on what may come, until it is mended."""
    texts = (WON, DONE, COMPLAINT % (MENDED if mended else BROKEN), LOW)
    files = [parse_yaml(text, f"rules/{at}.yaml", {}) for at, text in enumerate(texts)]
    found, errors = rule_set(files, replace(homes.world(), instances={"pm", "im", "erp"}))
    assert errors == [], [str(error) for error in errors]
    return found


def pushes(random: Random) -> list[Pushed]:
    """Everything that the CRM will tell, in the order in which it happened."""
    found: list[Pushed] = []
    for number in range(random.randrange(1, 4)):
        found += _deal(random, f"O-{number}")
    for number in range(random.randrange(3)):
        found += _complaint(random, f"C-{number}")
    return found


def _deal(random: Random, id_: str) -> list[Pushed]:
    subject = f"opportunity/crm/{id_}"
    data = {**DEAL, "amount": random.choice(("880000", "880000", "5"))}
    life = LIFE[random.randrange(2) : random.randrange(3, len(LIFE) + 1)]
    told = [
        push("crm", f"{id_}-{at}", Fact(f"crm.opportunity.{name}", subject, str(at), _time(random, at), data))
        for at, name in enumerate(life, 1)
    ]
    if random.random() < 0.1:
        told.insert(random.randrange(len(told) + 1), push("crm", f"{id_}-odd", subject))
    if random.random() < 0.1:
        told.append(push("crm", f"{id_}-nothing"))
    return told


def _complaint(random: Random, id_: str) -> list[Pushed]:
    subject = f"complaint/crm/{id_}"
    data = {"customer": "华为", "text": "?", "severity": random.choice((0, 1, 3, 9))}
    more = [Fact("crm.complaint.escalated", subject, str(n), _time(random, n), {"step": n}) for n in range(2, 4)]
    filed = Fact("crm.complaint.filed", subject, "1", _time(random, 1), data)
    return [push("crm", f"{id_}-1", filed), push("crm", f"{id_}-2", *more[: random.randrange(3)])]


def _time(random: Random, at: int) -> datetime:
    """When it happened, by a clock that is seldom right."""
    return START + timedelta(minutes=at) + random.choice((timedelta(), timedelta(days=-1), timedelta(days=2)))


def stock(random: Random) -> list[Fact]:
    """What the inventory will tell when it is asked."""
    data = {"item": "螺丝", "quantity": 3, "minimum": 10}
    return [
        Fact("erp.stock.ran_low", f"item/erp/S-{n % 2}", str(n), START + timedelta(minutes=n), data)
        for n in range(1, random.randrange(1, 5))
    ]
