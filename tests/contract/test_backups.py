"""A backup brings log and ledger back, at any age of either; what is damaged is noticed before anything is written."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.home import Home
from hub.kit.connector import Idempotency
from hub.ledger import commands, outbox
from hub.ledger.ledger import Ledger
from hub.log.event_log import Record
from hub.log.memory_log import MemoryLog
from hub.ops.backups import making, restoring, segments
from hub.ops.backups.making import back_up
from hub.ops.backups.manifest import read
from schemas.topics import EVENTS
from tests.contract.test_recall import asked, empty, ids_by_number, record, relayed
from tests.executor_bench import Bench

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, url: str) -> Home:
    folder = tmp_path / "home"
    (folder / "rules").mkdir(parents=True)
    (folder / "hub.yaml").write_text("name: small\n", "utf-8")
    (folder / ".env").write_text("CRM_SECRET=x\n", "utf-8")
    (folder / "rules" / "a.yaml.off").write_text("x", "utf-8")
    (folder / ".hub").mkdir()
    (folder / ".hub" / "rules.json").write_text("{}", "utf-8")
    return Home.load(folder, {"HUB_LEDGER": url, "HUB_BOARDS": f"sqlite:///{tmp_path}/b.sqlite"})


def values(log: MemoryLog) -> dict[tuple[str, int], list[tuple[bytes | None, bytes | None]]]:
    return {
        at: [(r.key, r.value) for r in there] for at, there in log.records.items() if at[0] == EVENTS.name and there
    }


def test_a_segment_gives_back_what_was_packed() -> None:
    records = [
        Record("t", 3, at, key, value) for at, (key, value) in enumerate([(b"k", b"v"), (None, b""), (b"", None)])
    ]
    assert list(segments.unpack(segments.pack(records))) == [(r.offset, r.key, r.value) for r in records]
    with pytest.raises(FatalError, match="HUB-E5201"):
        list(segments.unpack(segments.pack(records)[:-3]))


def test_only_what_has_come_since_is_added_and_all_comes_back(
    home: Home, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "SEGMENT_BYTES", 4000)
    ledger, log, folder = Ledger(url), MemoryLog(), tmp_path / "copies"
    record(ledger, *range(40))
    relayed(ledger, log)
    first = back_up(home, log, folder, NOW)
    record(ledger, *range(40, 60))
    relayed(ledger, log)
    record(ledger, *range(60, 65))  # these are on their way
    seen: list[tuple[int, int]] = []
    second = back_up(home, log, folder, NOW, lambda done, total: seen.append((done, total)))
    assert (first.records, second.records) == (40, 60)
    assert second.segments[: len(first.segments)] == first.segments
    assert seen[-1] == (60, 60)
    assert {each.file for each in second.home} == {"home/.env", "home/hub.yaml", "home/rules/a.yaml.off"}
    assert folder.stat().st_mode & 0o077 == 0
    ledger.close()

    found, new, there = restoring.verify(folder), MemoryLog(), empty(url)
    assert restoring.restore(found, folder, new, there, NOW) == 60
    assert values(new) == values(log)
    restored = Ledger(there)
    assert restored.outbox_id == second.ledger.outbox if second.ledger else False
    assert record(restored, *range(65)) == 0
    assert record(restored, *range(65, 70)) == 5
    relayed(restored, new)
    assert len(ids_by_number(new)) == 70
    assert all(len(told) == 1 for told in ids_by_number(new).values())
    restored.close()
    with pytest.raises(FatalError, match="HUB-E5204"):
        restoring.restore(found, folder, new, there, NOW)


def test_the_ledger_of_a_backup_may_be_newer_than_its_log(home: Home, tmp_path: Path, url: str) -> None:
    """It is copied last; what the log has since is in it."""
    ledger, log, folder = Ledger(url), MemoryLog(), tmp_path / "copies"
    record(ledger, *range(30))
    relayed(ledger, log)
    made = back_up(home, log, folder, NOW)
    record(ledger, *range(30, 50))
    relayed(ledger, log)
    from hub.ops.backups.ledger_copy import copy_ledger
    from hub.ops.backups.manifest import write

    made.ledger = copy_ledger(url, folder, "2026-11-22T00:00:00.000000Z")
    write(folder, made)
    new, there = MemoryLog(), empty(url)
    assert restoring.restore(restoring.verify(folder), folder, new, there, NOW) == 50
    assert ids_by_number(new) == ids_by_number(log)
    ledger.close()


def test_what_is_damaged_missing_or_of_another_log_is_refused(home: Home, tmp_path: Path, url: str) -> None:
    ledger, log, folder = Ledger(url), MemoryLog(), tmp_path / "copies"
    with pytest.raises(FatalError, match="HUB-E5201"):
        restoring.verify(folder)
    record(ledger, *range(20))
    relayed(ledger, log)
    made = back_up(home, log, folder, NOW)
    file = folder / made.segments[0].file
    raw = file.read_bytes()
    for spoilt in (raw[:-1] + b"!", raw[:-1], raw + b"x"):
        file.write_bytes(spoilt)
        with pytest.raises(FatalError, match="HUB-E5202"):
            restoring.verify(folder)
    file.unlink()
    with pytest.raises(FatalError, match="HUB-E5202"):
        restoring.verify(folder)
    with pytest.raises(FatalError, match="HUB-E5203"):
        back_up(home, MemoryLog(), folder, NOW)
    (folder / "manifest.json").write_text("{}", "utf-8")
    with pytest.raises(FatalError, match="HUB-E5201"):
        restoring.verify(folder)
    ledger.close()


def test_one_that_was_broken_off_goes_on(home: Home, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "SEGMENT_BYTES", 1000)
    ledger, log, folder = Ledger(url), MemoryLog(), tmp_path / "copies"
    record(ledger, *range(60))
    relayed(ledger, log)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(making, "copy_ledger", broken)
        with pytest.raises(KeyboardInterrupt):
            back_up(home, log, folder, NOW)
    with pytest.raises(FatalError, match="HUB-E5201"):
        restoring.verify(folder)
    left = read(folder)
    assert left is not None
    done = back_up(home, log, folder, NOW)
    assert done.segments == left.segments
    assert restoring.verify(folder).records == 60
    ledger.close()


def test_what_was_done_since_the_backup_is_not_done_again(home: Home, tmp_path: Path, url: str) -> None:
    bench, folder = Bench(Ledger(url)), tmp_path / "copies"
    system = bench.system("pm", class_=Idempotency.LOOKUP)
    early, late = asked(1, "a"), asked(2, "b", "c")
    record(bench.ledger, 1)
    bench.ask(*early)
    with bench.running():
        bench.until_states("DONE", early)
    relayed(bench.ledger, bench.log)
    back_up(home, bench.log, folder, NOW)
    bench.ask(*late)
    with bench.running():
        bench.until_states("DONE", late)
    bench.ledger.close()

    bench.log, there = MemoryLog(), empty(url)
    restoring.restore(restoring.verify(folder), folder, bench.log, there, datetime(2099, 1, 1, tzinfo=UTC))
    bench.ledger = Ledger(there)
    bench.ask(*early, *late)  # the log folded anew, and what its senders tell once more
    with bench.running():
        bench.until_states("DONE", [*early, *late])
    assert Counter(system.effects) == dict.fromkeys([each.id for each in (*early, *late)], 1)
    assert len(system.sent) == 5
    with bench.ledger.reading() as conn:
        assert commands.states(conn) == {"DONE": 5}
        assert outbox.counts(conn)["held"] == 0
    bench.ledger.close()


def test_a_home_is_made_where_there_is_none_and_left_where_there_is_one(home: Home, tmp_path: Path, url: str) -> None:
    ledger, log, folder = Ledger(url), MemoryLog(), tmp_path / "copies"
    record(ledger, 1)
    relayed(ledger, log)
    found = back_up(home, log, folder, NOW)
    assert restoring.restore_home(found, folder, tmp_path / "new") == []
    assert (tmp_path / "new" / ".env").read_text("utf-8") == "CRM_SECRET=x\n"
    (home.path / "hub.yaml").write_text("name: other\n", "utf-8")
    assert restoring.restore_home(found, folder, home.path) == ["hub.yaml"]
    assert (home.path / "hub.yaml").read_text("utf-8") == "name: other\n"
    ledger.close()
