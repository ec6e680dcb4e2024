"""A hub that forgets cases and trims its ledger after a second, and kills amid that: F48, F49. What it let go of, it knows."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Mapping

from hub.ledger import outbox
from hub.ledger.ledger import read_snapshot
from hub.log.event_log import read_to_end
from hub.log.kafka_log import KafkaLog
from schemas.topics import STATE
from tests.acceptance.acme import SECRETS, Sender, deal
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

DEALS = 8
"""That are lost, forgotten, and won after all: most of them lie in partitions of their own."""
REPEATED = 5
"""Deals that are told of once more when the ledger has let go of them."""
AMID_RETURNING = ("worker.cases-back",) * 3 + ("worker.outputs-delivered", "worker.states-delivered")


def won_after_all(stage: Stage, chosen: random.Random) -> None:
    """Lost deals are forgotten; as they come back, because they are won after all, the worker is killed."""
    sender, log = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"]), KafkaLog(stage.hub.client)
    with contextlib.ExitStack() as accepted:
        deals = [accepted.enter_context(stage.load.one_more()) for _ in range(DEALS)]
        for number in deals:
            sender.push(deal(number, type_="deal.lost", version=5), LONGEST)
        until(
            lambda: _forgotten(log).items() >= dict.fromkeys(_cases(deals), True).items(), LONGEST, "all are forgotten"
        )
        stage.arm(chosen.choice(AMID_RETURNING), chosen.randint(1, 2))
        for number in deals:
            sender.push(deal(number), LONGEST)
    assert stage.fails(60.0), "no forgotten case comes back"
    until(lambda: all(map(stage.has_project, deals)), LONGEST, "what was won after all has its project")


def _cases(deals: list[int]) -> list[bytes]:
    return [f"opportunity/crm/O-{number}".encode() for number in deals]


def _forgotten(log: KafkaLog) -> Mapping[bytes, bool]:
    """Case → whether the last word of its state is that it is forgotten."""
    found = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            if record.key is not None:
                found[record.key] = b'"forgotten":[' in (record.value or b"")[:60]
    return found


def trimmed(stage: Stage, chosen: random.Random) -> None:
    """What a backup has is trimmed, a kill falls into that, and deals that the ledger has no row of are told of once more."""
    assert stage.hub.json("backup", str(stage.folder / "backup"))["ok"]
    old = chosen.sample(stage.load.sent, min(REPEATED, len(stage.load.sent)))
    assert stage.fail_at(chosen.choice(("trim.chosen", "ledger.trimming")), chosen.randint(1, 3), 60.0), (
        "nothing is trimmed"
    )
    sender = Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"])
    for number in old:
        sender.push(deal(number), LONGEST)


def has_let_go(stage: Stage) -> list[str]:
    """A ledger that has a row of everything has trimmed nothing."""
    with read_snapshot(stage.ledger, "outbox") as conn:
        assert conn is not None
        accepted, rows = outbox.counts(conn)["accepted"], outbox.count(conn)
    return [] if rows < accepted else [f"of {accepted} events the ledger has {rows} rows"]


ROWS = [
    Row(
        "F48",
        "forgotten cases come back, and kills amid that",
        2,
        40,
        won_after_all,
        per_second=5.0,
        needs="haste",
        any_store=True,
    ),
    Row(
        "F49",
        "the ledger lets go of rows, and kills amid that",
        2,
        40,
        trimmed,
        per_second=5.0,
        needs="haste",
        checks=has_let_go,
    ),
]
