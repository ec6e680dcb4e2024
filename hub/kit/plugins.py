"""Finds plugins by the entry points of a group: each name belongs to one package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from hub.errors import FatalError


def points_by_name(
    group: str, duplicate: Callable[[str, str, str], FatalError], reserved: Mapping[str, str]
) -> Mapping[str, EntryPoint]:
    """The entry points of a group by name. `reserved`: name → the module of ours that has it already.

    Raises what `duplicate` makes of a name that is taken, and of the two packages that claim it.
    """
    points: dict[str, EntryPoint] = {}
    owners = dict(reserved)
    for point in entry_points(group=group):
        if point.name in owners:
            raise duplicate(point.name, owners[point.name], point.value)
        points[point.name], owners[point.name] = point, point.value
    return points
