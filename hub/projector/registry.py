"""Finds the boards: ours and those of other packages, by the entry points of the group `baton.projections`.

An entry point's name is the board's, and its value is a `Board` (a projection with a page) or a `Projection` without one. The
folder of its module holds `page.html`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from hub.errors import FatalError
from hub.kit.projection import AnyProjection, Board, Projection
from hub.projector import trail_index

GROUP = "baton.projections"


def boards() -> Mapping[str, Board]:
    """Those with a page, in the order of the menu. Raises FatalError for a package that cannot be loaded."""
    pages = [found for found in _found().values() if isinstance(found, Board)]
    return {board.name: board for board in sorted(pages, key=lambda board: (board.order, board.name))}


def projections() -> Mapping[str, Projection]:
    """All that fold the log into rows, with a page or without."""
    pages = {name: board.projection for name, board in boards().items()}
    return {**pages, **{name: found for name, found in _found().items() if isinstance(found, Projection)}}


def all_projections() -> Mapping[str, AnyProjection]:
    """All that is kept equal to the log: the projections, and the index of the log."""
    return {**projections(), trail_index.INDEX.name: trail_index.INDEX}


def folder(board: str) -> Path:
    """Where a board's page lies."""
    return Path(str(sys.modules[_points()[board].module].__file__)).parent


@functools.cache
def _found() -> Mapping[str, Board | Projection]:
    return {name: _loaded(point) for name, point in sorted(_points().items())}


@functools.cache
def _points() -> Mapping[str, EntryPoint]:
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in (*points, trail_index.INDEX.name):
            first = points[point.name].value if point.name in points else trail_index.__name__
            raise FatalError("HUB-E7017", board=point.name, first=first, second=point.value)
        points[point.name] = point
    return points


def _loaded(point: EntryPoint) -> Board | Projection:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise FatalError("HUB-E7016", board=point.name, package=point.value, reason=str(error)) from error
    if not isinstance(found, Board | Projection) or found.name != point.name:
        reason = f"{point.value} is no board of the name {point.name}"
        raise FatalError("HUB-E7016", board=point.name, package=point.value, reason=reason)
    return found
