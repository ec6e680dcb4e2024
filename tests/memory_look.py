"""A look at a log in memory, as `hub.health` looks at one on a broker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hub.health.log_look import MAX_RECORDS, Front, LogPosition, front_of
from hub.log.memory_log import MemoryLog
from schemas.topics import EVENTS


@dataclass
class MemoryLook:
    """`committed`: partition → what the processor has folded, nothing at first."""

    log: MemoryLog
    committed: dict[int, int] = field(default_factory=dict)

    def ends(self, topic: str) -> dict[int, int]:
        return self.log.ends(topic)

    def folded(self) -> dict[int, int]:
        return dict.fromkeys(self.log.ends(EVENTS.name), 0) | self.committed

    def fronts(self, wanted: Iterable[LogPosition]) -> dict[LogPosition, Front]:
        found = {}
        for topic, partition, offset in wanted:
            records = self.log.records[topic, partition][offset : offset + MAX_RECORDS]
            found[topic, partition, offset] = front_of([(r.time, r.value or b"") for r in records])
        return found

    def close(self) -> None:
        """Nothing to let go of."""
