"""Every topic: what travels on it, by which key, and how long it is kept."""

from __future__ import annotations

from dataclasses import dataclass

PARTITIONS = 12
"""Of every topic, fixed when a hub is made: a case keeps its partition, and the processor's state lies beside its events."""

VIEW_KINDS = (
    "opportunity", "account", "complaint", "order", "item", "invoice", "expense", "message", "project", "task",
)  # fmt: skip
"""Kinds of entity that have a view of their own."""


@dataclass(frozen=True)
class Topic:
    """`retention_days` None: for ever. A compacted topic keeps the last record of each key."""

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
    # By the broker's clock: it refuses records of a program whose clock is an hour ahead, and deletes old ones by their time.
    clock = {"message.timestamp.type": "LogAppendTime"}
    kept = "-1" if topic.retention_days is None else str(topic.retention_days * 86_400_000)
    if topic.compacted:
        # Within an hour the owner of a partition writes again what a stale writer has overwritten (`hub.processor.stale_writes`).
        # A segment is compacted once it is closed: a restore reads the records of the last 75 minutes, and one of each key before.
        return {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000", "segment.ms": "900000", **clock}
    return {"cleanup.policy": "delete", "retention.ms": kept, "retention.bytes": "-1", **clock}
