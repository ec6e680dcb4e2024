"""The job that every contender does: won2task.

Each opportunity has ten events, one of which says that it was won; one event in a hundred comes twice. Of each event that is new
its entity's state is kept and one view record is sent; of a won one, five commands as well. All of acme's rules apply, so all
deals are above their limit.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from confluent_kafka import Message

from hub.log.kafka_writers import producer
from hub.log.partitioner import partition_of
from schemas.envelope import Event
from schemas.topics import PARTITIONS
from tests.events import event

EVENTS_OF_A_DEAL = 10
COMMANDS_OF_A_DEAL = 5
AT_ONCE = 200
"""Deals whose events are mixed with each other's."""


@dataclass(frozen=True)
class Load:
    """Events in the order of the log, repeats included, and what must come of them."""

    records: list[tuple[bytes, bytes]]
    views: int
    commands: int


def load(deals: int, seed: int = 5) -> Load:
    """So many deals' events, as the relay writes them; the same for the same arguments."""
    chosen = random.Random(seed)
    active: list[list[Event]] = []
    sequences = Counter[int]()
    records: list[tuple[bytes, bytes]] = []
    begun = 0
    while active or begun < deals:
        if begun < deals and len(active) < AT_ONCE:
            active.append(story(begun))
            begun += 1
            continue
        deal = active[chosen.randrange(len(active))]
        record = _relayed(deal.pop(0), sequences)
        records += [record, record] if chosen.random() < 0.01 else [record]
        if not deal:
            active.remove(deal)
    return Load(records, deals * EVENTS_OF_A_DEAL, deals * COMMANDS_OF_A_DEAL)


def _relayed(told: Event, sequences: Counter[int]) -> tuple[bytes, bytes]:
    """The record of an event, with the number that the relay gives it, where the relay puts it: gapless in its partition."""
    key = told.case.encode()
    partition = partition_of(key, PARTITIONS)
    sequences[partition] += 1
    numbered = b',"sequence":"%d","outbox":"bench"}' % sequences[partition]
    return key, told.to_json()[:-1] + numbered


def story(number: int) -> list[Event]:
    """A deal from its creation to a word after it was won."""
    ref = f"opportunity/crm/O-{number:07}"
    types = ["created", *["changed"] * (EVENTS_OF_A_DEAL - 3), "won", "changed"]
    return [
        event(
            f"crm.opportunity.{type_}",
            ref,
            version=str(at),
            data={
                "name": f"网关项目 {number}",
                "account": "华为技术有限公司",
                "amount": str(100_000 + number),
                "currency": "CNY",
                "owner": "person/wang.fang",
                "probability": at * 10,
            },
        )
        for at, type_ in enumerate(types, 1)
    ]


def append(bootstrap: str, topic: str, given: Load) -> None:
    """Write a load to a topic; returns once the broker has it."""
    lost: list[object] = []

    def told(error: object, _message: Message) -> None:
        if error is not None:
            lost.append(error)

    sender = producer({"bootstrap.servers": bootstrap}, **{"linger.ms": 20})
    for at, (key, value) in enumerate(given.records):
        sender.produce(topic, value, key, on_delivery=told)
        if at % 1000 == 0:
            sender.poll(0)
    assert sender.flush(120) == 0
    assert not lost, lost[:3]


def partitions() -> int:
    """Of every topic of every contender."""
    return PARTITIONS
