"""Every topic: what it carries, its key, and its retention."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONS = 12
"""Partitions of every topic, fixed when a hub is created: a case keeps its partition, co-partitioned with the processor's state."""

VIEW_KINDS = (
    "opportunity", "account", "complaint", "order", "item", "invoice", "expense", "message", "project", "task",
)  # fmt: skip
"""Kinds of entity that have a view topic."""


@dataclass(frozen=True)
class Topic:
    """A topic. `retention_days` None: indefinitely. A compacted topic retains the last record of each key."""

    name: str
    key: str
    carries: str
    compacted: bool = False
    retention_days: int | None = None


EVENTS = Topic("hub.events", "case id", "every fact")
COMMANDS = Topic("hub.commands", "case id", "requests", retention_days=30)
STATE = Topic(
    "hub.state",
    "case id, or that and the name of a part",
    "the processor's state, with the log offset it reflects",
    compacted=True,
)
VIEWS = {kind: Topic(f"hub.view.{kind}", "entity id", "its current state", compacted=True) for kind in VIEW_KINDS}
ALL = (EVENTS, COMMANDS, STATE, *VIEWS.values())


def settings_of(topic: Topic) -> dict[str, str]:
    """The broker's settings for a topic."""
    # Timestamps by the broker's clock: with CreateTime it refuses records of a producer whose clock is an hour ahead, and expires
    # records by the producer's clock.
    clock = {"message.timestamp.type": "LogAppendTime"}
    retention_ms = "-1" if topic.retention_days is None else str(topic.retention_days * 86_400_000)
    if topic.compacted:
        # Within an hour the owner of a partition rewrites state that a zombie has overwritten (`hub.processor.stale_writes`).
        # Only closed segments are compacted: a restore reads all records of the last 75 minutes, and one per key before that.
        return {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000", "segment.ms": "900000", **clock}
    return {"cleanup.policy": "delete", "retention.ms": retention_ms, "retention.bytes": "-1", **clock}
