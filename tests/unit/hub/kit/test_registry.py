"""Connectors are found by their manifests, here and in other packages, and loaded only when they are used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.errors import FatalError, Place
from hub.kit import manifest, registry
from hub.kit.connector import Instance

MANIFEST = """
name = "weather"
kind = "any"
learns = "none"
quality = "bronze"
title = { zh = "天气", en = "Weather" }
summary = { zh = "天气", en = "Weather" }
guarantee = { zh = "无", en = "none" }
[[items]]
state = "done"
about = { zh = "天气", en = "weather" }
"""
CODE = """
from hub.kit.connector import Connector, Instance
def connect(instance: Instance) -> Connector:
    return Connector(instance)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place where packages are installed, seen by nobody else."""
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield tmp_path
    _forget()
    for name in [name for name in sys.modules if name.startswith("weather_connector")]:
        del sys.modules[name]


def _forget() -> None:
    registry.manifest.cache_clear()
    registry._all.cache_clear()


def _install(site: Path, name: str = "weather", package: str = "weather_connector", code: str = CODE) -> Path:
    folder = site / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "manifest.toml").write_text(MANIFEST, "utf-8")
    (folder / "connector.py").write_text(code)
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[baton.connectors]\n{name} = {package}\n")
    return folder


def test_folders_with_a_manifest_are_connectors() -> None:
    assert {"builtin", "http"} <= set(registry.names())
    assert registry.manifest("http").title.in_language("en") == "Any system over HTTP"
    assert registry.manifest("http").title.in_language("zh-CN") == "通用 HTTP"
    assert (registry.folder("builtin") / "connector.py").is_file()


def test_an_unknown_name_is_told_with_the_one_that_was_meant() -> None:
    here = Instance("crm", "htpp", {}, lambda path: Place("hub.yaml", 7, 3))
    with pytest.raises(FatalError) as caught:
        registry.connect(here)
    assert (caught.value.code, str(caught.value.place)) == ("HUB-E4050", "hub.yaml:7:3")
    assert caught.value.seen["suggestion"] == "http"


def test_a_package_brings_a_connector_by_its_entry_point(site: Path) -> None:
    folder = _install(site)
    assert "weather" in registry.names()
    assert registry.folder("weather") == folder
    assert registry.manifest("weather").quality == "bronze"
    assert "weather_connector.connector" not in sys.modules
    assert registry.connect(Instance("w", "weather", {})).instance.name == "w"


def test_a_package_cannot_take_the_name_of_one_of_ours(site: Path) -> None:
    _install(site, name="http")
    with pytest.raises(FatalError) as caught:
        registry.names()
    assert caught.value.code == "HUB-E4053"
    assert {caught.value.seen["first"], caught.value.seen["second"]} == {"connectors.http", "weather_connector"}


def test_a_connector_that_lacks_a_package_says_which(site: Path) -> None:
    _install(site, code="import no_such_package\n")
    with pytest.raises(FatalError) as caught:
        registry.connect(Instance("w", "weather", {}))
    assert caught.value.code == "HUB-E4052"
    assert "no_such_package" in caught.value.seen["reason"]


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ('zh = "天气", en = "Weather"', 'en = "Weather"', "title.zh"),
        ('quality = "bronze"', "", "quality"),
        ('quality = "bronze"', 'quality = "bronze"\ncolour = "red"', "colour"),
        ('state = "done"', 'state = "todo"', "needs a reason"),
        ('name = "weather"', "name = ", "line 2"),
    ],
)
def test_a_wrong_manifest_says_where(tmp_path: Path, right: str, wrong: str, told: str) -> None:
    (tmp_path / "manifest.toml").write_text(MANIFEST.replace(right, wrong, 1), "utf-8")
    with pytest.raises(FatalError) as caught:
        manifest.read(tmp_path)
    assert caught.value.code == "HUB-E4051"
    assert told in caught.value.seen["reason"]


def test_listing_connectors_loads_none_of_their_code() -> None:
    ask = (
        "import sys; from hub.kit import registry; [registry.manifest(name) for name in registry.names()]; "
        "loaded = [name for name in sys.modules if name.startswith(('requests', 'cel_expr', 'connectors.http'))]; "
        "sys.exit(repr(loaded) if loaded else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
