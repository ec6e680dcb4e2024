"""What a restore cannot do is refused before anything is moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.cli import backup
from hub.cli.running_hub import RunningHub
from hub.errors import FatalError
from hub.home import Home
from hub.ops.backups.manifest import BackupManifest, LedgerSnapshot

FULL = backup.ExistingData(events=9, since=2, log=True, ledger=True)
POSTGRESQL = "postgresql://127.0.0.1:1/nowhere"


def hub_on(tmp_path: Path, ledger: str, monkeypatch: pytest.MonkeyPatch, *, kafka: str = "") -> RunningHub:
    """A hub that is stopped, with a log and a ledger that hold something."""
    (tmp_path / "hub.yaml").write_text(f"name: small\n{kafka}", "utf-8")
    hub = RunningHub(Home.load(tmp_path, {"HUB_LEDGER": ledger}))
    (hub.home.data / "kafka" / "log").mkdir(parents=True)
    monkeypatch.setattr(backup, "_existing_data", lambda *_: FULL)
    return hub


def made(kind: str) -> BackupManifest:
    """A backup with a ledger of this kind."""
    return BackupManifest.model_construct(ledger=LedgerSnapshot.model_construct(kind=kind, given={}))


def lies_there(hub: RunningHub) -> list[str]:
    """What stands in the folder of its data."""
    return sorted(each.name for each in hub.home.data.iterdir())


def test_a_ledger_that_cannot_be_set_aside_leaves_the_log_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = hub_on(tmp_path, POSTGRESQL, monkeypatch)
    before = lies_there(hub)
    with pytest.raises(FatalError, match="HUB-E5207") as refused:
        backup._make_room(hub, made("postgresql"), replace=True)
    assert "127.0.0.1:1/nowhere" in str(refused.value)
    assert lies_there(hub) == before


def test_a_backup_with_another_kind_of_ledger_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hub_on(tmp_path, f"sqlite:///{tmp_path}/ledger.sqlite", monkeypatch)
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    before = lies_there(hub)
    with pytest.raises(FatalError, match="HUB-E5205"):
        backup._make_room(hub, made("postgresql"), replace=True)
    assert lies_there(hub) == before


def test_a_log_of_a_cluster_leaves_the_ledger_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = hub_on(
        tmp_path, f"sqlite:///{tmp_path}/ledger.sqlite", monkeypatch, kafka="kafka: {bootstrap: 'broker:9092'}\n"
    )
    (tmp_path / "ledger.sqlite").write_bytes(b"")
    with pytest.raises(FatalError, match="HUB-E5207"):
        backup._make_room(hub, made("sqlite"), replace=True)
    assert (tmp_path / "ledger.sqlite").exists()
