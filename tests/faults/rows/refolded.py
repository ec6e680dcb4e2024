"""The log is folded anew when other rules lie on disk, and kills fall into that: F45. Nothing of the past is asked for anew."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

from sqlalchemy import func, select

from hub.ledger.commands import commands
from hub.ledger.ledger import read_snapshot
from schemas.envelope import format_time
from tests.acceptance.running import until
from tests.faults.row import Row
from tests.faults.stage import LONGEST, Stage

PLACES = ("worker.before-in-force", "worker.in-force", "worker.outputs-delivered", "worker.states-delivered")
RULE = """\
rule: of-the-past-{number}
title: {{zh: 只看从前, en: Of the past}}
owner: sales-ops
when: crm.opportunity.won
if: event.recordedtime < "{before}"
do:
  - message.send: {{in: im, to: "${{role('delivery-lead')}}", text: "补 ${{event.data.name}}"}}
"""
"""It holds for nothing that comes from now on, and for all that came before: under today's rules a refold would ask for it."""


def other_rules(stage: Stage, chosen: random.Random) -> None:
    """A rule is added while the hub is down, the state is forgotten, and a worker that folds the log is killed."""
    stage.load.hold()
    until(lambda: _settled(stage), LONGEST, "all that was accepted is folded")
    file = stage.hub.home / "rules" / "of_the_past.yaml"
    stage.hub.stop()
    file.write_text(RULE.format(number=stage.faults, before=format_time(datetime.now(UTC))))
    mended = stage.hub.run("repair", "state")
    assert mended.returncode == 0, mended.stderr
    stage.hub.start()
    stage.faults += 1
    stage.load.go_on()
    stage.fail_at(chosen.choice(PLACES), chosen.randint(1, 3), seconds=10.0)
    deal = stage.load.push()
    until(lambda: stage.has_project(deal), LONGEST, "new deals are judged")
    file.unlink()
    time.sleep(2.0)  # its removal is announced


def _settled(stage: Stage) -> bool:
    told = stage.hub.json("status")
    return told["unpublished"] == 0 and bool(told["processor"]) and told["processor"]["lag"] == 0


def nothing_of_the_past(stage: Stage) -> list[str]:
    """What the added rules have asked for."""
    with read_snapshot(stage.ledger, "commands") as conn:
        assert conn is not None
        body = commands.c.body
        found = [row.id for row in conn.execute(select(commands.c.id, body)) if b'"of-the-past-' in row.body]
        asked = conn.execute(select(func.count()).select_from(commands)).scalar_one()
    return [f"asked for anew: {len(found)} of {asked} requests, {found[:3]}"] if found else []


ROWS = [
    Row(
        "F45",
        "the log is folded anew under other rules",
        1,
        10,
        other_rules,
        checks=nothing_of_the_past,
        per_second=4.0,
    )
]
