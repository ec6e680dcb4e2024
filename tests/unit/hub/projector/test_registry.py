"""Boards are found by their entry points, here and in other packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import FatalError
from hub.projector import registry

CODE = """
from sqlalchemy import Column, MetaData, Table, Text
from hub.kit.projection import Board, Projection
table = Table("weather", MetaData(), Column("key", Text, primary_key=True))
PROJECTION = Projection("weather", {"zh-CN": "天气", "en": "Weather"}, 1, table, lambda event: (), lambda rows, event: {})
BOARD = Board(projection=PROJECTION, order=15, parts=("all",), part=None, shown=table.c.key != "", newest=(), filters=(), fields=())
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place where packages are installed, seen by nobody else."""
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield tmp_path
    _forget()
    sys.modules.pop("weather_board", None)


def _forget() -> None:
    registry._found.cache_clear()
    registry._points.cache_clear()


def _install(site: Path, name: str = "weather", value: str = "weather_board:BOARD", code: str = CODE) -> None:
    (site / "weather_board.py").write_text(code, "utf-8")
    info = site / "weather_board-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weather_board\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[baton.projections]\n{name} = {value}\n")


def test_ours_come_in_the_order_of_the_menu_and_the_index_of_the_log_is_kept_too() -> None:
    assert list(registry.boards()) == ["tasks", "deals", "inbox"]
    assert set(registry.all_projections()) == {"tasks", "deals", "inbox", "entities", "trail"}
    assert (registry.folder("deals") / "page.html").is_file()


def test_a_package_brings_a_board_by_its_entry_point(site: Path) -> None:
    _install(site)
    assert list(registry.boards()) == ["tasks", "weather", "deals", "inbox"]
    assert registry.projections()["weather"].title["en"] == "Weather"
    assert registry.folder("weather") == site


@pytest.mark.parametrize("name", ["tasks", "trail"])
def test_a_package_cannot_take_the_name_of_one_of_ours(site: Path, name: str) -> None:
    _install(site, name)
    with pytest.raises(FatalError) as caught:
        registry.boards()
    assert (caught.value.code, caught.value.seen["board"]) == ("HUB-E7017", name)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("weather_board:BOARD", "import no_such_module"),
        ("weather_board:BOARD", "BOARDS = 1"),
        ("weather_board:BOARD", "BOARD = 'a board'"),
        ("no_such_board:BOARD", CODE),
        ("weather_board:BOARD", CODE.replace('Projection("weather"', 'Projection("rain"')),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(site: Path, value: str, code: str) -> None:
    _install(site, value=value, code=code)
    with pytest.raises(FatalError) as caught:
        registry.boards()
    assert (caught.value.code, caught.value.seen["board"]) == ("HUB-E7016", "weather")
