"""The lanes of all instances, and people's accounts at them: what may be exchanged while calls go on."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from connectors.executor.lane import Lane
from connectors.executor.preparing import People, Target
from hub.clock import Clock
from hub.connector import Connector


class Lanes:
    """One lane for each instance, also for one that nobody has connected."""

    def __init__(self, connectors: Mapping[str, Connector], people: People, clock: Clock) -> None:
        self.people = people
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._lock = threading.Lock()
        self.use(connectors)

    def use(self, connectors: Mapping[str, Connector]) -> None:
        """Call by these from now on."""
        for name in {*connectors, *self._lanes}:
            self.of(name).use(connectors.get(name))

    def of(self, name: str) -> Lane:
        """The lane of an instance."""
        with self._lock:
            if name not in self._lanes:
                self._lanes[name] = Lane(name, self._clock)
            return self._lanes[name]

    def all(self) -> list[Lane]:
        """Every lane."""
        with self._lock:
            return list(self._lanes.values())

    def target(self, lane: Lane) -> Target | None:
        """What references mean there; None where the hub's own names are understood."""
        if lane.connector is not None and lane.connector.knows_persons:
            return None
        return Target(lane.name, self.people, tuple(each.name for each in self.all()))
