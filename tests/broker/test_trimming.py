"""A whole hub on its embedded broker trims what a backup has, is killed, is told again what it knew, and its audit is content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.ledger import outbox
from hub.ledger.ledger import read_snapshot
from tests.acceptance.acme import SECRETS, Sender, deal, environment
from tests.acceptance.outside import Outside
from tests.acceptance.running import RunningHub, until
from tests.broker.test_recovery import ACME, Stage

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    home = tmp_path / "home"
    home.mkdir()
    for file in ACME.rglob("*"):
        if file.is_file():
            copy = home / file.relative_to(ACME)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    config = (home / "hub.yaml").read_text("utf-8")
    (home / "hub.yaml").write_text(f"{config}\nledger_history: 1s\n", "utf-8")
    outside = Outside()
    made = Stage(RunningHub(home, tmp_path / "data", environment(outside.url)), outside, tmp_path / "copies")
    yield made
    if made.hub.process is not None and made.hub.process.poll() is None:
        made.hub.process.kill()
        made.hub.process.wait()
    outside.stop()


def kept(stage: Stage) -> tuple[int, int]:
    """Events accepted, and those with a row."""
    with read_snapshot(f"sqlite:///{stage.hub.data}/ledger.sqlite", "outbox") as conn:
        assert conn is not None
        return outbox.counts(conn)["accepted"], outbox.count(conn)


@pytest.mark.nightly
def test_what_a_backup_has_is_trimmed_and_the_hub_knows_it_all_the_same(stage: Stage, tmp_path: Path) -> None:
    stage.hub.start()
    stage.win(4)
    until(lambda: bool(stage.hub.json("audit").get("ok")), 180, "the audit is content")
    accepted, rows = kept(stage)
    assert rows == accepted
    assert stage.hub.json("backup", str(tmp_path / "copy"))["ok"]
    assert stage.hub.kill("connectors")
    until(lambda: kept(stage)[1] <= 3, 180, "the ledger is trimmed")

    for number in range(1, 5):
        Sender(stage.hub.url, "crm", SECRETS["CRM_SECRET"]).push(deal(number))  # told once more
    assert kept(stage)[0] == accepted
    until(lambda: bool(stage.hub.json("audit").get("ok")), 180, "the audit is content")
    stage.hub.stop()

    stage.lose("kafka")
    (tmp_path / "copy").rename(tmp_path / "moved")
    done = stage.hub.run("repair")
    assert done.returncode != 0
    assert "HUB-E2122" in done.stderr
    told = stage.repaired("--backup", str(tmp_path / "moved"))
    assert told["published"] == told["publish"]
    stage.whole()  # another deal, each effect once, and an audit that is content
