"""A night names all that it plays, plays no part twice, goes on where it was stopped, and says at its end what did not hold."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.row import all_rows
from tests.nightly.__main__ import STOPPED, main, night
from tests.nightly.parts import Part, parts


def script(name: str, text: str) -> Part:
    return Part(name, "3", (sys.executable, "-c", text))


def lines(shown: str) -> dict[str, list[str]]:
    """The table: name of the part → its line's words behind the name."""
    return {line.split()[0]: line.split()[1:] for line in shown.splitlines()}


def test_it_plays_every_row_on_every_store_and_fuzzes_all_that_comes_from_outside() -> None:
    names = [part.name for part in parts("tenth")]
    assert len(set(names)) == len(names)
    for row in all_rows().values():
        for store in row.stores:
            assert f"{row.name} {store}: {row.title}" in names
    assert {"S22 door", "S22 hub.yaml", "S22 people.yaml", "S22 rules", "S22 .env", "S22 log records"} <= set(names)
    assert "simulation" in names
    assert [part.mark for part in parts("full")] != [part.mark for part in parts("tenth")]


@pytest.fixture
def stoppable() -> Iterator[None]:
    """Ctrl-C is heard; a shell's background job begins deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("stoppable")
def test_a_night_that_was_stopped_goes_on_with_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = tmp_path / "count"
    first = script("first", f"open({str(count)!r}, 'a').write('1'); print('seen')")
    fails, last = script("fails", "raise SystemExit(3)"), script("last", "")
    stopped = script("stopped", "import os, signal; os.kill(os.getppid(), signal.SIGINT); import time; time.sleep(60)")
    assert night([first, fails, stopped, last], tmp_path / "kept") == STOPPED
    shown = lines(capsys.readouterr().out)
    assert (shown["first"][:2], shown["fails"][:3]) == (["3", "held"], ["3", "NO:", "fails.log"])
    assert "last" not in shown

    assert night([script("another", "")], tmp_path / "kept") == 0  # a part of it alone is a night of its own
    assert night([first, fails, script("stopped", ""), last], tmp_path / "kept") == 1
    shown = lines(capsys.readouterr().out)
    assert (shown["last"][:2], shown["all"][:2]) == (["3", "held"], ["4", "1"])
    assert count.read_text() == "1"
    assert (tmp_path / "kept" / "first.log").read_text() == "seen\n"

    assert night([first, last], tmp_path / "kept") == 0  # another night
    assert count.read_text() == "11"


def test_a_part_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "S22"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 9
    assert all("S22" in line and "100000" in line for line in listed)
