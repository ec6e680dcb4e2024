"""How much of what one instance pushes may be parked at once: a sender whose pushes all park must not fill the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from hub.config.settings import Quota
from hub.ledger.parked import is_open, parked

AGAIN_S = 5.0
"""Seconds for which figures of an instance hold: counting costs some milliseconds."""


@dataclass
class OpenDeliveries:
    """What is open of one instance's deliveries, as far as this program knows."""

    entries: int
    bytes: int
    at: float
    full_until: float = 0.0

    def exceeds(self, quota: Quota) -> bool:
        """Whether it is more than may be."""
        return self.entries > quota.entries or self.bytes > quota.bytes


def count(conn: Connection, instance: str) -> tuple[int, int]:
    """Open deliveries of an instance, and their bytes."""
    columns = parked.c
    found = select(func.count(), func.coalesce(func.sum(func.length(columns.body)), 0))
    row = conn.execute(found.where(is_open, columns.kind == "delivery", columns.instance == instance)).one()
    return int(row[0]), int(row[1])


class Quotas:
    """Knows whether an instance has its quota full. For the ledger's writing thread."""

    def __init__(self, quotas: Mapping[str, Quota] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas, self._clock = quotas or {}, clock
        self._taken: dict[str, OpenDeliveries] = {}

    def allow(self, conn: Connection, instance: str, entries: int, size: int) -> bool:
        """Whether what was just parked in this transaction may stay. Before it says no it has counted, at most seconds ago."""
        quota, now = self._quotas.get(instance, Quota()), self._clock()
        known = self._taken.get(instance)
        if known is None or now - known.at >= AGAIN_S:
            known = self._taken[instance] = OpenDeliveries(*count(conn, instance), now)
            return not known.exceeds(quota)
        if now < known.full_until:
            return False
        known.entries, known.bytes = known.entries + entries, known.bytes + size
        if not known.exceeds(quota):
            return True
        exact = OpenDeliveries(*count(conn, instance), known.at)
        if exact.exceeds(quota):
            known.full_until = now + quota.again
            return False
        self._taken[instance] = exact
        return True
