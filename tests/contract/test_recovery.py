"""What the ledger has is published into a log that lacks it: in order, once, and on from where a repair was broken off."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, delete

from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.kit.connector import Idempotency
from hub.ledger import commands, identity, outbox
from hub.ledger.ledger import Ledger
from hub.ledger.log_match import KnownLog, match
from hub.log.memory_log import MemoryLog
from hub.ops.recovery import RecoveryPlan, Survey, adopt_log, plan, prepare, publish
from hub.ops.repair import apply_repair, find_gaps
from schemas.topics import COMMANDS, EVENTS, PARTITIONS
from tests.contract.test_recall import asked, ids_by_number, record, relayed
from tests.executor_bench import Bench

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def lost(ledger: Ledger, log: MemoryLog) -> RecoveryPlan:
    with ledger.reading() as conn:
        return plan(log, conn, Survey(match(log, KnownLog.of(conn))))


def test_a_log_that_was_lost_is_published_anew_in_order(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MemoryLog()
    record(ledger, *range(60))
    relayed(ledger, log)
    record(ledger, *range(60, 70))  # these the ledger has not sent yet
    numbers, new = ids_by_number(log), MemoryLog()
    wanted = lost(ledger, new)
    assert wanted == RecoveryPlan(publish=60, boards=True, requests=True, doubt=True)
    ledger.writer.run(lambda conn: prepare(conn, new, wanted, NOW))
    monkeypatch.setattr("hub.ops.recovery.MAX_BATCH", 7)

    def broken(done: int, _total: int) -> None:
        if done >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(new, ledger, broken)
    assert lost(ledger, new).publish == 39
    seen: list[tuple[int, int]] = []
    assert publish(new, ledger, lambda done, total: seen.append((done, total))) == 39
    assert seen[-1] == (39, 39)
    ledger.writer.run(lambda conn: adopt_log(conn, new))
    assert ids_by_number(new) == numbers
    assert sum(map(len, new.records.values())) == 61
    assert sum(new.ends(COMMANDS.name).values()) == 1  # so that nobody takes it for a new hub's
    assert lost(ledger, new).publish == 0
    relayed(ledger, new)
    assert len(ids_by_number(new)) == 70
    with ledger.reading() as conn:
        assert find_gaps(new, conn, ledger.outbox_id).gaps == []
        assert identity.get_value(conn, identity.LOG) == new.identity(EVENTS.name)


def test_a_gap_that_was_settled_stays_so_in_the_log_that_is_published_anew(ledger: Ledger) -> None:
    log = MemoryLog()
    record(ledger, *range(30))

    def lose(conn: Connection) -> None:
        rows = outbox.take(conn, 2, PARTITIONS)
        outbox.mark_published(conn, [row.id for row in rows], "2026-11-22T00:00:00.000000Z")
        conn.execute(delete(outbox.outbox).where(outbox.outbox.c.id == rows[0].id))

    ledger.writer.run(lose)
    with pytest.MonkeyPatch.context() as patched:  # while it runs, a relay does not ask again
        patched.setattr(LedgerCatchUp, "_settle_log", lambda self: None)
        relayed(ledger, log)
        with ledger.reading() as conn:
            first = find_gaps(log, conn, ledger.outbox_id)
        assert len(first.gaps) == 2
        ledger.writer.run(lambda conn: apply_repair(conn, first, NOW, "wang", "the disk burnt"))
        relayed(ledger, log)
    new = MemoryLog()
    publish(new, ledger)
    with ledger.reading() as conn:
        again = find_gaps(new, conn, ledger.outbox_id)
    done = ledger.writer.run(lambda conn: apply_repair(conn, again, NOW, "wang"))
    assert (done.left, done.accepted) == ([], sum(gap.lost for gap in again.gaps))
    relayed(ledger, new)
    with ledger.reading() as conn:
        assert find_gaps(new, conn, ledger.outbox_id).gaps == []


def test_what_a_lost_ledger_may_have_done_is_looked_up_before_it_is_done(url: str) -> None:
    bench = Bench(Ledger(url))
    bench.ledger.writer.run(
        lambda conn: prepare(conn, bench.log, RecoveryPlan(doubt=True), datetime(2099, 1, 1, tzinfo=UTC))
    )
    old, system = asked(1), bench.system("pm", class_=Idempotency.LOOKUP)
    system.effects[old[0].id] = 1
    bench.ask(*old)
    with bench.running():
        bench.until_states("DONE", old)
    assert (system.looked, system.sent) == ([old[0].id], [])
    with bench.ledger.reading() as conn:
        assert commands.states(conn) == {"DONE": 1}
    bench.ledger.close()
