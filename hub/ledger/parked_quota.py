"""Quota of open parked deliveries for each instance, so that a sender whose pushes all park cannot fill the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from hub.config.settings import Quota
from hub.ledger.parked import is_open, parked

RECOUNT_INTERVAL_S = 5.0
"""Seconds for which an instance's figures are cached: counting takes some milliseconds."""


@dataclass
class OpenDeliveries:
    """Open parked deliveries of one instance, as this process last counted them."""

    entries: int
    bytes: int
    at: float
    full_until: float = 0.0

    def exceeds(self, quota: Quota) -> bool:
        """Whether the quota is exceeded."""
        return self.entries > quota.entries or self.bytes > quota.bytes


def count(conn: Connection, instance: str) -> tuple[int, int]:
    """The number of an instance's open deliveries, and the bytes of their bodies."""
    columns = parked.c
    found = select(func.count(), func.coalesce(func.sum(func.length(columns.body)), 0))
    row = conn.execute(found.where(is_open, columns.kind == "delivery", columns.instance == instance)).one()
    return int(row[0]), int(row[1])


class Quotas:
    """Checks instances against their quotas. For the ledger's writer thread only."""

    def __init__(self, quotas: Mapping[str, Quota] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas, self._clock = quotas or {}, clock
        self._usage: dict[str, OpenDeliveries] = {}

    def allow(self, conn: Connection, instance: str, entries: int, size: int) -> bool:
        """Whether the entries just parked in this transaction may stay. A refusal rests on a count at most seconds old."""
        quota, now = self._quotas.get(instance, Quota()), self._clock()
        known = self._usage.get(instance)
        if known is None or now - known.at >= RECOUNT_INTERVAL_S:
            known = self._usage[instance] = OpenDeliveries(*count(conn, instance), now)
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
        self._usage[instance] = exact
        return True
