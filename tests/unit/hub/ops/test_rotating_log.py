"""A program's log never grows past its bound, whatever is written and whatever the disk does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.ops.programs import LogSizeLimits, RotatingLog

SMALL = LogSizeLimits(file=1000, line=100)


Made = Callable[[Path], RotatingLog]


@pytest.fixture
def made() -> Iterator[Made]:
    """Makes small logs, and closes them."""
    with contextlib.ExitStack() as stack:
        yield lambda path: stack.enter_context(contextlib.closing(RotatingLog(path, SMALL)))


def both(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in (path.with_suffix(".1.log"), path) if file.exists()]


def test_a_log_is_turned_while_it_is_written(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "logs" / "processor.log"
    log = made(path)
    for number in range(10_000):
        log.write(f"line {number}")
        assert sum(map(len, both(path))) <= 2 * SMALL.file if number % 100 == 0 else True
    lines = b"".join(both(path)).decode().splitlines()
    assert lines[-1] == "line 9999"
    assert [f"line {number}" for number in range(10_000 - len(lines), 10_000)] == lines, "no line is lost in a turn"
    assert {file.name for file in path.parent.iterdir()} == {"processor.log", "processor.1.log"}


def test_what_is_there_counts_and_is_kept(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "processor.log"
    path.write_bytes(b"x" * 990)
    log = made(path)
    log.write("more than ten bytes")
    assert both(path) == [b"x" * 990, b"more than ten bytes\n"]


def test_a_line_without_end_is_cut(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "processor.log"
    made(path).write("\ud83d" + "x" * 100_000)
    assert path.read_bytes() == b"?" + b"x" * 99 + b" ...\n"


def test_a_disk_that_takes_nothing_loses_lines_and_nothing_else(made: Made, tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("no folder can be made here")
    log = made(tmp_path / "logs" / "processor.log")
    log.write("lost")
    (tmp_path / "logs").unlink()
    log.write("kept")
    assert both(tmp_path / "logs" / "processor.log") == [b"kept\n"]


def test_a_log_that_cannot_be_turned_is_written_on_once_it_can(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "processor.log"
    log = made(path)
    path.with_suffix(".1.log").mkdir()
    (path.with_suffix(".1.log") / "in the way").touch()
    for _ in range(30):
        log.write("x" * 90)
    assert len(path.read_bytes()) <= SMALL.file
    (path.with_suffix(".1.log") / "in the way").unlink()
    path.with_suffix(".1.log").rmdir()
    log.write("o" * 99)
    assert path.read_bytes() == b"o" * 99 + b"\n"
