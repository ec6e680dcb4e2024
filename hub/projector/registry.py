"""The registry of boards: ours and those of other packages, from the entry points of the group `baton.projections`.

An entry point has the board's name; its value is a `Board` (a projection with a page) or a `Projection` without one. The folder
of its module holds `page.html`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path

from hub.errors import FatalError
from hub.kit.plugins import points_by_name
from hub.kit.projection import AnyProjection, Board, Projection
from hub.projector import trail_index

GROUP = "baton.projections"


def boards() -> Mapping[str, Board]:
    """Boards with a page by name, in menu order. Raises FatalError for an entry point that cannot be loaded."""
    pages = [found for found in _found().values() if isinstance(found, Board)]
    return {board.name: board for board in sorted(pages, key=lambda board: (board.order, board.name))}


def projections() -> Mapping[str, Projection]:
    """All projections by name, with or without a page."""
    pages = {name: board.projection for name, board in boards().items()}
    return {**pages, **{name: found for name, found in _found().items() if isinstance(found, Projection)}}


def all_projections() -> Mapping[str, AnyProjection]:
    """All projections, and the trail: everything that runners fold from the log."""
    return {**projections(), trail_index.INDEX.name: trail_index.INDEX}


def folder(board: str) -> Path:
    """The folder that holds a board's page."""
    return Path(str(sys.modules[_points()[board].module].__file__)).parent


@functools.cache
def _found() -> Mapping[str, Board | Projection]:
    return {name: _loaded(point) for name, point in sorted(_points().items())}


@functools.cache
def _points() -> Mapping[str, EntryPoint]:
    return points_by_name(GROUP, _duplicate, {trail_index.INDEX.name: trail_index.__name__})


def _duplicate(name: str, first: str, second: str) -> FatalError:
    return FatalError("HUB-E7017", board=name, first=first, second=second)


def _loaded(point: EntryPoint) -> Board | Projection:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise FatalError("HUB-E7016", board=point.name, package=point.value, reason=str(error)) from error
    if not isinstance(found, Board | Projection) or found.name != point.name:
        reason = f"{point.value} is no board of the name {point.name}"
        raise FatalError("HUB-E7016", board=point.name, package=point.value, reason=reason)
    return found
