"""Zombie fencing: a check every 60 s detects stale state that an expired worker wrote to `hub.state`, and rewrites it.

A restore is safe: of two records of a case, the one with the higher log offset wins. But compaction retains the last record of a
key, whatever its offset. It waits an hour before it does; long before that the partition's owner has read the topic's new
records and written its own again wherever a stale one is last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.engine.step import View
from hub.log.event_log import EventLog, Outgoing, read_to_end
from hub.processor.state import PART_SEPARATOR, POSITION_KEY, PartitionState, stored_offset
from schemas.topics import STATE

CHECK_INTERVAL_S = 60.0
"""Seconds between two checks."""


@dataclass
class StaleWrites:
    """The stale writes of one partition. `read` may run in a thread during a fold; `rewrites` only while no state is being sent."""

    state: PartitionState
    position: int
    """The next offset of `hub.state` to read."""
    pending: dict[bytes, int] | None = None
    """Records read and not checked yet: key → the log offset in its last record."""
    _unconfirmed: dict[bytes, int] = field(default_factory=dict)
    """Key → the offset of our own, already sent record when the last one read was older. Ours may only have come after it."""

    def read(self, log: EventLog) -> dict[bytes, int]:
        """Read from the last check to the end, for `add`: key → log offset. Blocks; raises RetryableError while the log is away."""
        stored: dict[bytes, int] = {}
        for batch in read_to_end(log, STATE.name, {self.state.partition: self.position}):
            for record in batch:
                if record.key is not None and record.value is not None:
                    stored[record.key] = stored_offset(record.key, record.value)
                self.position = record.offset + 1
        return stored

    def add(self, stored: Mapping[bytes, int]) -> None:
        """Add what `read` returned to the records not checked yet."""
        self.pending = {**(self.pending or {}), **stored}

    def rewrites(self) -> list[Outgoing]:
        """Return the views and states that must be written again, if any."""
        state, stored = self.state, self.pending or {}
        self.pending = None
        stale = state.stale | {key for key, offset in self._unconfirmed.items() if stored.get(key, -1) < offset}
        state.stale = set()
        self._unconfirmed = {
            key: state.reflects(key) for key in stored.keys() - stale if stored[key] < state.reflects(key)
        }
        records = [record for key in sorted(stale) if (record := state.record_of(key)) is not None]
        return [view for record in records for view in _views(state, record)] + records


def _views(state: PartitionState, record: Outgoing) -> list[Outgoing]:
    """The views of a record's entities, as of its case's last event: a worker that wrote stale state wrote stale views too."""
    key = record.key.partition(PART_SEPARATOR)[0]
    case = state.get(key) if key != POSITION_KEY else None
    if case is None:
        return []
    part = state.part(record.key) if record.key != key else None
    entities = case.entities.values() if part is None else [part.entity] if part.entity is not None else []
    views = (View(entity, case.id, case.recent[-1] if case.recent else "").record() for entity in entities)
    return [view for view in views if view is not None]
