"""What the log is told of its own losses: that the processor has stopped before one, and that one was dealt with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.log.event_log import EventLog, Stored, read_to_end
from hub.log.partitioner import partition_of
from hub.log.sequences import Dealt, Loss
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec
from schemas.topics import EVENTS, PARTITIONS

HALTED, REPAIRED = "hub.partition.halted", "hub.partition.repaired"


@dataclass
class SettledGaps:
    """The offsets of one partition before which what is missing was dealt with; `look` reads on in the log."""

    log: EventLog
    partition: int
    position: int
    offsets: Dealt = field(default_factory=dict)

    def look(self) -> Dealt:
        """Read what has come since the last look. Blocks; raises RetryableError while the log is away."""
        for batch in read_to_end(self.log, EVENTS.name, {self.partition: self.position}):
            self.offsets.update(settled_by(batch))
            self.position = batch[-1].offset + 1
        return self.offsets


def settled_by(records: Iterable[Stored]) -> Dealt:
    """The offsets that these records of one partition declare to be dealt with."""
    found: Dealt = {}
    for record in records:
        told = told_repaired(record)
        if told is not None and isinstance(told.get("offset"), int):
            found[told["offset"]] = told.get("foreign") is True
    return found


def told_repaired(record: Stored) -> dict[str, Any] | None:
    """The data of a record that says that its partition was repaired."""
    if REPAIRED.encode() not in (record.value or b""):
        return None
    try:
        event = Event.from_json(record.value or b"")
    except ValueError:
        return None
    right = event.type == REPAIRED and event.data.get("partition") == record.partition
    return event.data if right else None


def halted(loss: Loss, now: datetime) -> Event:
    """The fact that the processor has stopped before a loss; told again, it is the same one."""
    data = {**loss._asdict(), "code": loss.error().code}
    return _event(HALTED, loss.partition, derived_id(HALTED, *map(str, loss)), data, now)


def repaired(
    loss: Loss,
    now: datetime,
    *,
    published: int,
    accepted: int,
    reason: str | None,
    by: str | None,
    foreign: bool = False,
) -> Event:
    """The fact that a loss was dealt with: so many events were published again, so many are given up for `reason`.

    `foreign`: nothing was lost, as the number there was never given.
    """
    data: dict[str, Any] = {**loss._asdict(), "published": published, "accepted": accepted, "reason": reason, "by": by}
    data |= {"foreign": True} if foreign else {}
    return _event(REPAIRED, loss.partition, derived_id(REPAIRED, *map(str, loss)), data, now)


def _event(type_: str, partition: int, id_: str, data: dict[str, Any], now: datetime) -> Event:
    at, case = format_time(now), case_of(partition)
    return Event(
        id=id_,
        source="/hub/log",
        type=type_,
        subject=subject_of(partition),
        time=at,
        recordedtime=at,
        dataschema=event_spec(type_).dataschema,
        partitionkey=case,
        correlationid=case,
        data=data,
    )


def subject_of(partition: int) -> str:
    """What events about a partition are about."""
    return f"partition/hub/{partition}"


def case_of(partition: int, hashed: Callable[[bytes, int], int] = partition_of) -> str:
    """A case that lies in this very partition: who has stopped there finds the news by reading on."""
    tries = (f"{subject_of(partition)}/{n}" for n in range(100_000))
    return next(case for case in tries if hashed(case.encode(), PARTITIONS) == partition)
