"""Events about gaps in the log itself: the processor halted before one (`hub.partition.halted`), or an operator settled one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from hub.log.event_log import EventLog, StoredRecord, read_to_end
from hub.log.partitioner import partition_of
from hub.log.sequences import Loss, SettledOffsets
from schemas.envelope import Event, derived_id, format_time
from schemas.registry import event_spec
from schemas.topics import EVENTS, PARTITIONS

HALTED, REPAIRED = "hub.partition.halted", "hub.partition.repaired"


@dataclass
class SettledGaps:
    """The offsets of one partition whose gaps are settled; `look` reads newer records from the log."""

    log: EventLog
    partition: int
    position: int
    offsets: SettledOffsets = field(default_factory=dict)

    def look(self) -> SettledOffsets:
        """Read the records since the last call. Blocks; raises RetryableError while the log is unavailable."""
        for batch in read_to_end(self.log, EVENTS.name, {self.partition: self.position}):
            self.offsets.update(settled_by(batch))
            self.position = batch[-1].offset + 1
        return self.offsets


def settled_by(records: Iterable[StoredRecord]) -> SettledOffsets:
    """The offsets whose gaps these records of one partition declare settled."""
    settled: SettledOffsets = {}
    for record in records:
        repair = repair_data(record)
        if repair is not None and isinstance(repair.get("offset"), int):
            settled[repair["offset"]] = repair.get("foreign") is True
    return settled


def repair_data(record: StoredRecord) -> dict[str, Any] | None:
    """The data of a record that reports the repair of its own partition; None for any other record."""
    if REPAIRED.encode() not in (record.value or b""):
        return None
    try:
        event = Event.from_json(record.value or b"")
    except ValueError:
        return None
    is_repair = event.type == REPAIRED and event.data.get("partition") == record.partition
    return event.data if is_repair else None


def halted(loss: Loss, now: datetime) -> Event:
    """The event that the processor halted before a loss; the same loss always gives the same event id."""
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
    """The event that a loss was settled: `published` events were republished, `accepted` ones are given up for `reason`.

    `foreign`: nothing was lost, as no ledger ever assigned the sequence there (it comes from a foreign producer).
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
    """The subject of events about a partition."""
    return f"partition/hub/{partition}"


def case_of(partition: int, hashed: Callable[[bytes, int], int] = partition_of) -> str:
    """A case id that hashes to this very partition: a reader that halted there finds the repair event by reading on."""
    candidates = (f"{subject_of(partition)}/{n}" for n in range(100_000))
    return next(case for case in candidates if hashed(case.encode(), PARTITIONS) == partition)
