"""`hub repair` on a hub that runs: an event that was lost on its way stops its partition, is shown, and comes back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select

from hub.cli.init import make
from hub.ledger import outbox
from hub.ledger.commands import commands
from hub.ledger.ledger import Ledger
from hub.log.partitioner import partition_of
from schemas.envelope import Event
from schemas.topics import PARTITIONS
from tests.acceptance.running import RunningHub, running_hub, until
from tests.events import AT, won

pytestmark = [pytest.mark.broker, pytest.mark.slow]
DEAL = {"name": "lost", "account": "ACME", "amount": "880000", "currency": "CNY", "owner": "person/wang.fang"}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    make(tmp_path / "home", "crm-to-project")
    with running_hub(tmp_path / "home", tmp_path / "data", {}) as running:
        yield running


def win(hub: RunningHub, number: int) -> None:
    script = hub.home / "win_a_deal.sh"
    done = subprocess.run(
        [script, str(number), "880000"], env=hub.environment, capture_output=True, encoding="utf-8", check=True
    )
    assert "HTTP 202" in done.stdout


def case(number: int) -> str:
    return f"opportunity/crm/O-{number}"


def partition(number: int) -> int:
    return partition_of(case(number).encode(), PARTITIONS)


def beside(number: int, *, same: bool) -> int:
    """Another deal, in the same partition or in another."""
    return next(n for n in range(number + 1, 1000) if (partition(n) == partition(number)) == same)


def tasks(hub: RunningHub, number: int) -> int:
    told = hub.json("events", "tail", "--case", case(number), "--type", "work.task.created", "-n", "50")
    return len(told["events"])


def lose(hub: RunningHub, number: int, keep: bool = True) -> Event:
    """Have an event that was accepted, numbered and marked as published never reach the log. `keep`: the outbox has it still."""
    lost = won(f"O-{number}", data=DEAL)
    ledger = Ledger(f"sqlite:///{hub.data}/ledger.sqlite")

    def work(conn: Connection) -> None:
        outbox.record(conn, [lost], "crm")
        rows = outbox.take(conn, 100, PARTITIONS)
        assert [row.case for row in rows] == [lost.case]
        outbox.mark_published(conn, [rows[0].id], AT)
        if not keep:
            conn.execute(delete(outbox.outbox).where(outbox.outbox.c.id == rows[0].id))

    try:
        ledger.writer.run(work)
    finally:
        ledger.close()
    return lost


def settled(hub: RunningHub) -> bool:
    """Whether all that was accepted is folded, and nothing is on its way."""
    told = hub.json("status")
    ended = all(told["commands"].get(state, 0) == 0 for state in ("new", "sending", "retry", "unknown"))
    return told["unpublished"] == 0 and bool(told["processor"]) and told["processor"]["lag"] == 0 and ended


def halted(hub: RunningHub) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = hub.json("status")["halted"]
    return found


def test_a_lost_event_is_noticed_shown_and_published_again(hub: RunningHub) -> None:
    win(hub, 1)
    until(lambda: tasks(hub, 1) >= 2 and settled(hub), 60, "the first deal is done")
    lost = lose(hub, 2)
    same, other = beside(2, same=True), beside(2, same=False)
    win(hub, same)
    win(hub, other)
    until(lambda: tasks(hub, other) >= 2, 60, "the other partitions go on")
    until(lambda: bool(halted(hub)), 30, "the status tells of the halt")
    (told,) = halted(hub)
    assert (told["code"], told["partition"]) == ("HUB-E2110", partition(2))
    assert tasks(hub, same) == 0
    checks = hub.json("doctor")
    assert not checks["ok"]
    (alarm,) = [check for check in checks["checks"] if check["check"] == "log"]
    assert alarm["level"] == "FAIL"
    assert "hub repair" in alarm["fix"]
    assert "HUB-E2110" in hub.run("status").stdout
    assert hub.run("audit").returncode == 1

    shown = hub.json("repair", "--dry-run")
    assert (shown["published"], shown["accepted"], len(shown["gaps"])) == (0, 0, 1)
    assert [each["subject"] for each in shown["gaps"][0]["events"]] == [lost.subject]
    assert halted(hub)
    done = hub.run("repair")
    assert done.returncode == 0, done.stderr
    assert "1 published again, 0 given up" in done.stdout
    until(lambda: tasks(hub, same) >= 2 and tasks(hub, 2) >= 2, 60, "both deals have their tasks")
    assert halted(hub) == []
    until(lambda: settled(hub), 60, "nothing is on its way")
    until(lambda: hub.run("audit").returncode == 0, 120, "the audit holds")
    again = hub.json("repair")
    assert (again["ok"], again["gaps"], again["tails"], again["published"]) == (True, [], {}, 0)


THANKS = """\
rule: thanks-for-a-deal
title: {zh: 赢单致谢, en: Thanks for a deal}
owner: sales-ops
when: crm.opportunity.won
do:
  - message.send: {in: desk, to: person/wang.fang, text: "谢谢 ${event.data.name}"}
"""


def asked(hub: RunningHub) -> dict[str, str]:
    """Every command that the ledger has, by its id: the rule that asked for it."""
    ledger = Ledger(f"sqlite:///{hub.data}/ledger.sqlite")
    try:
        with ledger.reading() as conn:
            return {row.id: json.loads(row.body)["rule"] for row in conn.execute(select(commands))}
    finally:
        ledger.close()


def test_a_rule_added_since_asks_for_nothing_of_old_deals_when_the_log_is_folded_anew(hub: RunningHub) -> None:
    for number in range(1, 6):
        win(hub, number)
    until(lambda: all(tasks(hub, number) >= 2 for number in range(1, 6)) and settled(hub), 120, "the deals are done")
    before = asked(hub)
    hub.stop()
    (hub.home / "rules" / "thanks.yaml").write_text(THANKS)
    assert hub.run("repair", "state").returncode == 0
    hub.start()
    until(lambda: settled(hub), 120, "the log is folded anew")
    win(hub, 100)
    until(
        lambda: "thanks-for-a-deal" in asked(hub).values() and settled(hub), 120, "a new deal is judged by the new rule"
    )
    more = {id_: rule for id_, rule in asked(hub).items() if id_ not in before}
    assert list(more.values()).count("thanks-for-a-deal") == 1, "only the new deal is thanked for"
    judged = hub.json("audit", "--decisions")
    assert judged["ok"], judged["findings"]
    assert judged["counts"]["requests_given"] == judged["counts"]["requests_recorded"] == len(asked(hub)) > 0
    assert len(hub.json("rules", "history")["changes"]) == 2
    hub.stop()
    assert hub.run("repair", "state").returncode == 0
    hub.start()
    until(lambda: settled(hub), 120, "the log is folded anew once more")
    assert asked(hub).keys() == {*before, *more}


def test_what_is_nowhere_is_given_up_only_for_a_reason_and_the_log_tells_it(hub: RunningHub) -> None:
    win(hub, 1)
    until(lambda: tasks(hub, 1) >= 2 and settled(hub), 60, "the first deal is done")
    lose(hub, 2, keep=False)
    same = beside(2, same=True)
    win(hub, same)
    until(lambda: bool(halted(hub)), 60, "the status tells of the halt")
    refused = hub.run("repair")
    assert refused.returncode != 0
    assert "HUB-E2113" in refused.stderr
    assert hub.run("repair", "--accept-gap").returncode == 2
    assert halted(hub)
    done = hub.json("repair", "--accept-gap", "--reason", "the disk burnt", "--by", "wang.fang")
    assert (done["ok"], done["accepted"]) == (True, 1)
    until(lambda: tasks(hub, same) >= 2, 60, "the deal behind the gap has its tasks")
    (told,) = hub.json("events", "tail", "--type", "hub.partition.repaired", "-n", "5")["events"]
    assert json.dumps(told["event"]["data"]).count("the disk burnt") == 1
    assert told["event"]["data"]["by"] == "wang.fang"
    until(lambda: settled(hub), 60, "nothing is on its way")
    until(lambda: hub.run("audit").returncode == 0, 120, "the audit holds")

    hub.stop()
    assert hub.run("repair", "state").returncode == 0
    hub.start()
    until(lambda: settled(hub), 60, "the log is folded anew")
    assert hub.run("audit").returncode == 0
    assert tasks(hub, same) == 2
