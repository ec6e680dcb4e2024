"""Log, ledger, boards, or two of them: lost, older or another hub's. One command brings the hub back; nothing is done twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.acme import SECRETS, Sender, deal, environment
from tests.acceptance.outside import Outside
from tests.acceptance.running import RunningHub, until
from tests.postgres_fixture import NewDatabase

pytestmark = [pytest.mark.broker, pytest.mark.slow]
ACME = Path(__file__).parents[2] / "hub" / "templates" / "acme"
TASKS = 3


@dataclass
class Stage:
    """A hub that is stopped and started, and the systems that outlive it."""

    hub: RunningHub
    outside: Outside
    copies: Path
    deals: int = 0

    def win(self, count: int = 1) -> None:
        """Win deals, and wait until all that follows is done."""
        for _ in range(count):
            self.deals += 1
            Sender(self.hub.url, "crm", SECRETS["CRM_SECRET"]).push(deal(self.deals))
        until(lambda: len(self.outside.of("messages")) >= self.deals, 120, "every deal has its message")

    def keep(self, name: str, *what: str) -> None:
        """Copy some of the data of the hub, which is stopped."""
        for each in what:
            for file in self.hub.data.glob(f"{each}*"):
                copy = self.copies / name / file.name
                copy.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if file.is_dir() else shutil.copy)(file, copy)

    def lose(self, *what: str) -> None:
        """Have it no more."""
        for each in what:
            for file in self.hub.data.glob(f"{each}*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()

    def put_back(self, name: str, *what: str) -> None:
        """Go on from a copy."""
        self.lose(*what)
        for file in (self.copies / name).iterdir():
            if any(file.name.startswith(each) for each in what):
                (shutil.copytree if file.is_dir() else shutil.copy)(file, self.hub.data / file.name)

    def refused(self, code: str) -> None:
        """`hub up` says what is wrong and what to do, instead of restarting for ever."""
        done = self.hub.run("up")
        assert done.returncode != 0
        assert code in done.stderr, done.stderr[-800:]
        assert " repair" in done.stderr

    def repaired(self, *more: str) -> dict[str, object]:
        told = self.hub.json("repair", *more)
        assert told.get("ok"), told
        stores: dict[str, object] = told["stores"]
        return stores

    def whole(self) -> None:
        """The hub goes on, all is there, and all of it once."""
        self.hub.start()
        self.win()
        assert {kind: len(self.outside.of(kind)) for kind in ("projects", "tasks", "messages")} == {
            "projects": self.deals, "tasks": TASKS * self.deals, "messages": self.deals,
        }  # fmt: skip
        for kind in ("projects", "tasks", "messages"):
            assert set(self.outside.marks(kind).values()) == {1}, kind
        until(lambda: bool(self.hub.json("audit").get("ok")), 180, f"audit: {self.hub.run('audit').stdout[-600:]}")
        self.hub.stop()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    made: list[Stage] = []

    def make(**databases: str) -> Stage:
        outside = Outside()
        told = {**environment(outside.url), **databases}
        one = Stage(RunningHub(ACME, tmp_path / "data", told), outside, tmp_path / "copies")
        made.append(one)
        one.hub.start()
        one.win(5)
        one.hub.stop()
        return one

    yield make
    for one in made:
        one.hub.end()
        one.outside.stop()


def test_the_log_is_lost_and_the_ledger_has_it_all(stage: Callable[..., Stage]) -> None:
    one = stage()
    one.lose("kafka")
    one.refused("HUB-E2116")
    shown = one.hub.json("repair", "--dry-run")["stores"]
    assert (shown["log"], shown["published"], shown["doubt"]) == ("lost", 0, False)
    assert shown["publish"] > 0
    assert one.repaired()["published"] == shown["publish"]
    one.whole()
    again = one.repaired()
    assert (again["log"], again["publish"], again["boards"], again["state"]) == ("same", 0, False, False)

    one.lose("kafka", "boards.sqlite")  # and nothing is left to bear out that the ledger is whole
    one.refused("HUB-E2116")
    assert one.repaired()["doubt"]
    one.whole()


@pytest.mark.nightly
def test_the_log_or_the_ledger_goes_on_from_an_older_copy_and_no_person_is_needed(stage: Callable[..., Stage]) -> None:
    one = stage()
    one.keep("early", "kafka", "ledger.sqlite")
    one.whole()
    one.put_back("early", "kafka")
    one.whole()
    one.lose("boards.sqlite")
    one.put_back("early", "ledger.sqlite")
    one.whole()
    one.lose("ledger.sqlite")
    one.whole()


@pytest.mark.nightly
def test_what_is_nowhere_any_more_is_said_and_given_up_for_a_reason(stage: Callable[..., Stage]) -> None:
    one = stage()
    one.keep("early", "kafka", "ledger.sqlite")
    one.whole()
    one.put_back("early", "kafka", "ledger.sqlite")  # the boards alone have seen the last deal
    one.refused("HUB-E2119")
    left = one.hub.run("repair")
    assert left.returncode != 0
    assert "HUB-E2119" in left.stderr
    gone = one.hub.json("repair", "--dry-run")["stores"]["gone"]
    assert sum(gone.values()) > 0
    told = one.repaired("--accept-gap", "--reason", "the disk burnt")
    assert (told["boards"], told["doubt"]) == (True, True)
    one.hub.start()
    Sender(one.hub.url, "crm", SECRETS["CRM_SECRET"]).push(deal(one.deals))  # its sender tells it once more
    one.win()
    for kind in ("projects", "tasks", "messages"):
        assert set(one.outside.marks(kind).values()) == {1}, kind
    one.hub.stop()


def test_one_postgresql_database_for_both_and_the_log_is_lost(
    stage: Callable[..., Stage], postgres: NewDatabase
) -> None:
    url = postgres()
    one = stage(HUB_LEDGER=url, HUB_BOARDS=url)
    one.lose("kafka")
    one.refused("HUB-E2116")
    assert one.repaired()["log"] == "lost"
    one.whole()


@pytest.mark.nightly
def test_stores_of_another_hub_are_named_and_one_of_them_is_kept_by_choice(stage: Callable[..., Stage]) -> None:
    one = stage()
    one.keep("ours", "kafka", "ledger.sqlite", "boards.sqlite")
    one.lose("kafka", "ledger.sqlite", "boards.sqlite")
    one.hub.start()  # another hub on the same folder: nothing of before is there
    one.win()
    one.hub.stop()
    one.put_back("ours", "ledger.sqlite", "boards.sqlite")
    one.refused("HUB-E5009")
    assert "HUB-E5009" in one.hub.run("repair").stderr
    aside = one.repaired("--keep", "ledger")["set_aside"]
    assert isinstance(aside, list)
    assert Path(aside[0]).is_dir()
    one.whole()


def test_a_backup_made_while_the_hub_runs_brings_back_all_but_what_came_later(stage: Callable[..., Stage]) -> None:
    one = stage()
    folder = str(one.copies / "backup")
    one.hub.start()
    first = one.hub.json("backup", folder)
    one.win(2)
    second = one.hub.json("backup", folder)
    assert 0 < second["new"] < second["events"] == first["events"] + second["new"]
    one.win(2)  # these the backup does not have, and the other systems do
    one.hub.stop()
    refused = one.hub.run("restore", folder)
    assert refused.returncode != 0
    assert "HUB-E5204" in refused.stderr
    assert " repair" in refused.stderr
    one.lose("ledger.sqlite", "boards.sqlite")
    told = one.hub.json("restore", folder, "--replace")
    assert told["ok"]
    assert told["home_differs"] == []
    assert [Path(name).is_dir() for name in told["set_aside"]] == [True]
    one.hub.start()
    for number in (one.deals - 1, one.deals):
        Sender(one.hub.url, "crm", SECRETS["CRM_SECRET"]).push(deal(number))  # their sender tells them once more
    one.hub.stop()
    one.whole()
