"""People are read again when their file changes, and stay as they were while it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.errors import FatalError, RejectedError
from hub.home import Home
from hub.people_watcher import PeopleWatcher

PEOPLE = "people:\n  {id}: {{name: 王芳, accounts: {{crm: {account}, pm: '7'}}}}\n"


def write(home: Path, account: str, id_: str = "wang.fang") -> None:
    (home / "people.yaml").write_text(PEOPLE.format(account=account, id=id_), "utf-8")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "hub.yaml").write_text("name: acme\nconnectors: {}\n", "utf-8")
    write(tmp_path, "U-3")
    return tmp_path


def test_accounts_are_known_both_ways(home: Path) -> None:
    staff = PeopleWatcher(Home.load(home))
    assert staff.person_of("crm", "U-3") == "person/wang.fang"
    assert staff.account("person/wang.fang", "pm") == "7"
    with pytest.raises(RejectedError):
        staff.account("person/wang.fang", "im")


def test_a_change_is_seen_without_a_restart(home: Path) -> None:
    staff = PeopleWatcher(Home.load(home))
    assert not staff.refresh()
    write(home, "U-33")
    assert staff.refresh()
    assert (staff.person_of("crm", "U-3"), staff.person_of("crm", "U-33")) == (None, "person/wang.fang")
    assert not staff.refresh()


def test_a_file_that_is_wrong_changes_nothing_until_it_is_right(home: Path) -> None:
    staff = PeopleWatcher(Home.load(home))
    (home / "people.yaml").write_text("people: [", "utf-8")
    assert not staff.refresh()
    assert staff.person_of("crm", "U-3") == "person/wang.fang"
    write(home, "U-4")
    assert staff.refresh()
    assert staff.person_of("crm", "U-4") == "person/wang.fang"


def test_settings_that_change_are_left_for_a_restart(home: Path) -> None:
    staff = PeopleWatcher(Home.load(home))
    (home / "hub.yaml").write_text("name: other\nconnectors: {}\n", "utf-8")
    assert not staff.refresh()


def test_a_file_that_is_wrong_from_the_start_is_named(home: Path) -> None:
    (home / "people.yaml").write_text("people: [", "utf-8")
    with pytest.raises(FatalError) as refused:
        PeopleWatcher(Home.load(home))
    assert refused.value.place is not None
    assert refused.value.place.file.endswith("people.yaml")
