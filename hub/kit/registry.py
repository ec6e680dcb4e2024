"""Finds installed connectors, ours and those of other packages, by the entry points of the group `baton.connectors`.

An entry point's name is the connector's name, and its value is the package with `manifest.toml` and `connector.py`. A connector's
code is not imported before `connect`.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from hub.errors import FatalError
from hub.kit import manifest as manifests
from hub.kit.connector import Connect, Connector, Instance
from hub.kit.manifest import Manifest
from hub.kit.plugins import points_by_name
from hub.kit.settings import closest

GROUP = "baton.connectors"


@dataclass(frozen=True)
class InstalledConnector:
    """An installed connector: its package, and the package's folder."""

    name: str
    package: str
    folder: Path


def names() -> tuple[str, ...]:
    """Every connector's name, sorted."""
    return tuple(sorted(_all()))


def folder(name: str) -> Path:
    """A connector's folder, with its manifest, README and samples. Raises FatalError for an unknown name."""
    return _found(name).folder


def package(name: str) -> str:
    """The package with its code. Raises FatalError for an unknown name."""
    return _found(name).package


@functools.cache
def manifest(name: str) -> Manifest:
    """A connector's manifest. Raises FatalError for an unknown name or a wrong manifest."""
    return manifests.read(_found(name).folder)


def connect(instance: Instance) -> Connector:
    """Make the instance's connector, importing its code now; opens no connection.

    Raises FatalError with its place in hub.yaml for an unknown `use:`, and for wrong settings.
    """
    found = _found(instance.use, instance)
    try:
        module = importlib.import_module(f"{found.package}.connector")
    except ImportError as error:
        raise FatalError("HUB-E4052", place=instance.place(("use",)), use=instance.use, reason=str(error)) from error
    return cast(Connect, module.connect)(instance)


def _found(name: str, instance: Instance | None = None) -> InstalledConnector:
    known = _all()
    if name in known:
        return known[name]
    place = instance.place(("use",)) if instance else None
    suggestion = closest(name, known) or " | ".join(sorted(known))
    raise FatalError("HUB-E4050", place=place, use=name, known=", ".join(sorted(known)), suggestion=suggestion)


@functools.cache
def _all() -> dict[str, InstalledConnector]:
    return {name: _installed(point) for name, point in points_by_name(GROUP, _duplicate, {}).items()}


def _duplicate(name: str, first: str, second: str) -> FatalError:
    return FatalError("HUB-E4053", use=name, first=first, second=second)


def _installed(point: EntryPoint) -> InstalledConnector:
    try:
        spec = find_spec(point.value)
    except ImportError as error:
        raise FatalError("HUB-E4052", use=point.name, reason=str(error)) from error
    if spec is None or not spec.submodule_search_locations:
        raise FatalError("HUB-E4052", use=point.name, reason=f"{point.value} is no package")
    return InstalledConnector(point.name, point.value, Path(next(iter(spec.submodule_search_locations))))
