"""What a worker that slept still says of cases that another has by now: found in `hub.state`, and overruled.

A restore is not deceived, as of two records of a case the one with the higher offset holds. But compaction keeps the last one,
whatever it says. It waits an hour before it does; long before that the partition's owner has read what was written there since,
and says its own word again wherever another stands last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hub.engine.step import View
from hub.log.event_log import EventLog, Outgoing, read_to_end
from hub.processor.state import APART, PLACE, PartitionState, said_of
from schemas.topics import STATE

EVERY = 60.0
"""Seconds between two looks."""


@dataclass
class StaleWrites:
    """Those of one partition. `read` may run in a thread, beside a fold; `overruled` only while nothing of it is on its way."""

    state: PartitionState
    position: int
    """The next offset of `hub.state` to look at."""
    unheard: dict[bytes, int] | None = None
    """What was read and not judged yet: key → the offset in the last record of it."""
    _doubted: dict[bytes, int] = field(default_factory=dict)
    """Key → what we had, and had sent, when a lower one stood last as far as was read. Perhaps ours only came later."""

    def read(self, log: EventLog) -> dict[bytes, int]:
        """The words from the last look to the end, for `hear`. Blocks; raises RetryableError while the log is away."""
        words: dict[bytes, int] = {}
        for batch in read_to_end(log, STATE.name, {self.state.partition: self.position}):
            for record in batch:
                if record.key is not None and record.value is not None:
                    words[record.key] = said_of(record.key, record.value)
                self.position = record.offset + 1
        return words

    def hear(self, words: Mapping[bytes, int]) -> None:
        """Keep what was read, behind what is not judged yet."""
        self.unheard = {**(self.unheard or {}), **words}

    def overruled(self) -> list[Outgoing]:
        """The views and states that must be said again, if any."""
        state, words = self.state, self.unheard or {}
        self.unheard = None
        late = state.late | {key for key, had in self._doubted.items() if words.get(key, -1) < had}
        state.late = set()
        self._doubted = {key: state.reflects(key) for key in words.keys() - late if words[key] < state.reflects(key)}
        again = [record for key in sorted(late) if (record := state.said(key)) is not None]
        return [view for record in again for view in _views(state, record)] + again


def _views(state: PartitionState, record: Outgoing) -> list[Outgoing]:
    """The views of what a record holds, as of its case's last event: who was late with the state was late with them."""
    key = record.key.partition(APART)[0]
    case = state.get(key) if key != PLACE else None
    if case is None:
        return []
    part = state.part(record.key) if record.key != key else None
    entities = case.entities.values() if part is None else [part.entity] if part.entity is not None else []
    views = (View(entity, case.id, case.recent[-1] if case.recent else "").record() for entity in entities)
    return [view for view in views if view is not None]
