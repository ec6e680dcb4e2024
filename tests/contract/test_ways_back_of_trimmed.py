"""What the ledger has trimmed and the log lacks comes back from a backup; without one, that is said before anything is done."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.home import Home
from hub.ledger import identity, outbox, retention, trimmed
from hub.ledger.ledger import Ledger
from hub.ledger.log_match import KnownLog, match
from hub.log.memory_log import MemoryLog
from hub.ops.backups import ledger_copy, making, restoring
from hub.ops.backups.filling import Filling, filling
from hub.ops.backups.making import back_up
from hub.ops.recovery import adopt_log, publish, trimmed_and_lacking
from hub.ops.repair import apply_repair, find_gaps, with_backup
from hub.replay.audit.audit import audit
from hub.runtime.clock import SystemClock
from schemas.topics import EVENTS
from tests.contract.test_backups import home as home  # a fixture
from tests.contract.test_recall import empty, ids_by_number, record, relayed
from tests.trimming import kept, trim

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def trimmed_hub(ledger: Ledger, home: Home, folder: Path) -> MemoryLog:
    """60 events in the log, of which a backup has 40, and the ledger 20 whole; 10 more are on their way."""
    log = MemoryLog()
    record(ledger, *range(40))
    relayed(ledger, log)
    back_up(home, log, folder, NOW)
    record(ledger, *range(40, 60))
    relayed(ledger, log)
    assert trim(ledger, log, needs_backup=True) == 40
    record(ledger, *range(60, 70))
    return log


def from_backup(ledger: Ledger, log: MemoryLog, folder: Path) -> Filling | None:
    with ledger.reading() as conn:
        lacking = trimmed_and_lacking(log, conn)
    above, floors = {p: last for p, (last, _) in lacking.items()}, {p: floor for p, (_, floor) in lacking.items()}
    return filling(folder, ledger.outbox_id, above, floors)


def content(ledger: Ledger, log: MemoryLog) -> None:
    """Nothing is missing, and nothing is there twice."""
    relayed(ledger, log)
    assert sorted(len(ids) for ids in ids_by_number(log).values()) == [1] * 70
    assert len({next(iter(ids)) for ids in ids_by_number(log).values()}) == 70
    with ledger.reading() as conn:
        report = audit(log, conn, ledger.outbox_id, NOW, lambda: outbox.sequence_ends(conn))
    found = [each.what for each in report.findings if "cases" not in each.what and "state" not in each.place]
    assert (found, report.counts["accepted"]) == ([], 70)
    assert record(ledger, *range(70)) == 0


def test_the_ledger_knows_what_a_backup_has(ledger: Ledger, home: Home, folder: Path) -> None:
    log = trimmed_hub(ledger, home, folder)
    with ledger.reading() as conn:
        known = retention.last_backup(conn)
        assert known is not None
        assert (known.folder, known.log, known.cut) == (str(folder), log.identity(EVENTS.name), "")
        assert sum(known.next_offsets.values()) == 40
        assert retention.backup_of_log(conn, log.identity(EVENTS.name)) == known
        assert retention.backup_of_log(conn, "another") is None
    ledger.writer.run(lambda conn: identity.note_cut(conn, {3: 1}))
    with ledger.reading() as conn:
        assert retention.backup_of_log(conn, log.identity(EVENTS.name)) is None


def test_a_log_that_was_lost_is_filled_from_the_backup_and_from_the_ledger(
    ledger: Ledger, home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = ids_by_number(trimmed_hub(ledger, home, folder))
    new = MemoryLog()
    with pytest.raises(FatalError, match="HUB-E2122") as caught:
        publish(new, ledger)
    assert str(folder) in caught.value.fix("en")
    assert not any(new.ends(EVENTS.name).values())

    monkeypatch.setattr("hub.ops.backups.filling.MAX_BATCH", 2)

    def broken(done: int, _total: int) -> None:
        if done >= 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(new, ledger, broken, from_backup(ledger, new, folder))
    assert sum(new.ends(EVENTS.name).values()) < 40
    publish(new, ledger, filling=from_backup(ledger, new, folder))
    assert ids_by_number(new) == numbers
    assert sum(new.ends(EVENTS.name).values()) == 60
    ledger.writer.run(lambda conn: adopt_log(conn, new))
    content(ledger, new)
    assert trim(ledger, new) == 30  # the log is another: it is read from its start


def test_a_log_that_went_back_behind_what_was_trimmed_is_not_sent_a_tail_with_a_gap(
    ledger: Ledger, home: Home, folder: Path
) -> None:
    log = trimmed_hub(ledger, home, folder)
    there = {at: each[:1] for at, each in log.records.items()}
    log.records.clear()
    log.records.update(there)
    with ledger.reading() as conn:
        found = match(log, KnownLog.of(conn))
    error = found.error()
    assert (found.kind, found.trimmed) == ("behind", 40 - sum(map(len, there.values())))
    assert error is not None and error.code == "HUB-E2122"
    before = sum(log.ends(EVENTS.name).values())
    with pytest.raises(FatalError, match="HUB-E2122"):
        LedgerCatchUp(ledger, log, SystemClock()).make_sure()
    assert sum(log.ends(EVENTS.name).values()) == before
    publish(log, ledger, filling=from_backup(ledger, log, folder))
    content(ledger, log)


def test_a_backup_that_does_not_reach_far_enough_is_not_used(
    ledger: Ledger, home: Home, folder: Path, tmp_path: Path
) -> None:
    log = trimmed_hub(ledger, home, folder)
    shutil.copytree(folder, tmp_path / "older")
    back_up(home, log, folder, NOW)
    assert trim(ledger, log, needs_backup=True) == 20
    assert from_backup(ledger, MemoryLog(), tmp_path / "older") is None
    assert from_backup(ledger, MemoryLog(), tmp_path / "none") is None
    assert from_backup(ledger, MemoryLog(), folder) is not None


def test_what_was_trimmed_while_a_backup_was_made_is_in_it(
    ledger: Ledger, home: Home, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = MemoryLog()
    record(ledger, *range(40))
    relayed(ledger, log)
    copied = ledger_copy.copy_ledger

    def meanwhile(*args: object) -> object:
        record(ledger, *range(40, 60))
        relayed(ledger, log)
        trim(ledger, log)  # on a replicated log, with a history of no time at all
        return copied(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "copy_ledger", meanwhile)
    assert back_up(home, log, folder, NOW).records == 60


def test_a_backup_of_a_trimmed_ledger_comes_back_whole(ledger: Ledger, home: Home, folder: Path, url: str) -> None:
    log = trimmed_hub(ledger, home, folder)
    relayed(ledger, log)
    back_up(home, log, folder, NOW)
    trim(ledger, log, needs_backup=True)
    back_up(home, log, folder, NOW)
    numbers = ids_by_number(log)
    new, there = MemoryLog(), empty(url)
    restoring.restore(restoring.verify(folder), folder, new, there, NOW)
    restored = Ledger(there)
    try:
        assert kept(restored) == (70, 0)
        assert ids_by_number(new) == numbers
        content(restored, new)
    finally:
        restored.close()


def gap_below_the_floor(ledger: Ledger, log: MemoryLog) -> tuple[MemoryLog, int]:
    """The log, as one that has lost two records of a partition that are trimmed."""
    with ledger.reading() as conn:
        floors = trimmed.sequences(conn)
    partition = max(floors, key=lambda each: floors[each])
    there = log.records[EVENTS.name, partition]
    del there[1:3]
    there[:] = [each._replace(offset=at) for at, each in enumerate(there)]
    return log, partition


def test_a_gap_below_the_floor_is_told_as_such_and_closed_from_a_backup(
    ledger: Ledger, home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, partition = gap_below_the_floor(ledger, trimmed_hub(ledger, home, folder))
    with ledger.reading() as conn:
        found = find_gaps(log, conn, ledger.outbox_id)
    (gap,) = found.gaps
    assert (gap.missing, gap.trimmed, gap.lost, len(gap.rows)) == (2, 2, 2, 0)
    assert ledger.writer.run(lambda conn: apply_repair(conn, found, NOW, "me")).left == [gap]
    again = with_backup(found, folder, ledger.outbox_id)
    assert again.gaps[0].lost == 0
    done = ledger.writer.run(lambda conn: apply_repair(conn, again, NOW, "me"))
    assert (done.published, done.accepted, done.left) == (2, 0, [])
    relayed(ledger, log)
    with ledger.reading() as conn:
        assert find_gaps(log, conn, ledger.outbox_id).gaps == []
    ids = [each for told in ids_by_number(log).values() for each in told]
    assert len(ids) == len(set(ids)) == 71  # and one that tells of the repair
    assert kept(ledger) == (71, 33)
    assert partition in {p for p, _ in ids_by_number(log)}


def test_an_end_of_the_log_below_the_floor_is_not_sent_on_behind_a_gap(
    ledger: Ledger, home: Home, folder: Path
) -> None:
    log = trimmed_hub(ledger, home, folder)
    with ledger.reading() as conn:
        floors = trimmed.sequences(conn)
    partition = max(floors, key=lambda each: floors[each])
    del log.records[EVENTS.name, partition][1:]
    with ledger.reading() as conn:
        found = find_gaps(log, conn, ledger.outbox_id)
    assert found.lacking == {partition: (1, floors[partition])}
    assert partition not in found.tails
