"""What the log holds of an outbox, for a ledger that may know less of it than the log does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hub.event_log import EventLog, Reader, Record, read_to_end
from hub.sequences import numbered
from schemas.topics import EVENTS

_LAST_FEW = 50
"""Records at the end of a partition among which the last one of an outbox is looked for: a foreign hand may write there too."""


def tails(log: EventLog, outbox: str) -> dict[int, int]:
    """Partition → the last sequence of this outbox that lies in the log. Reads a few records of each partition."""
    found: dict[int, int] = {}
    for record, told in _last_few(log):
        if told[0] == outbox:
            found[record.partition] = max(told[1], found.get(record.partition, 0))
    return found


def tails_at_least(log: EventLog, outbox: str, wanted: Mapping[int, int]) -> dict[int, int]:
    """As `tails`. Where it finds less than is `wanted`, all of the partition is read: strangers may have written since."""
    found = tails(log, outbox)
    for partition, last in wanted.items():
        if found.get(partition, 0) < last:
            found[partition] = max(found.get(partition, 0), _highest(log, outbox, partition))
    return found


def _highest(log: EventLog, outbox: str, partition: int) -> int:
    """The highest sequence of this outbox in a partition; 0 for none."""
    told = (
        numbered(record.value)
        for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]})
        for record in batch
    )
    return max((own[1] for own in told if own is not None and own[0] == outbox), default=0)


def latest_outbox(log: EventLog) -> str | None:
    """The outbox that wrote to the log last; None when none has. Reads a few records of each partition."""
    latest = max(_last_few(log), key=lambda each: (each[0].time, each[0].offset), default=None)
    return latest[1][0] if latest else None


def _last_few(log: EventLog) -> Iterator[tuple[Record, tuple[str, int]]]:
    """The numbered ones among the last records of each partition."""
    ends, starts = log.ends(EVENTS.name), log.starts(EVENTS.name)
    positions = {partition: max(starts[partition], end - _LAST_FEW) for partition, end in ends.items()}
    for batch in read_to_end(log, EVENTS.name, positions):
        for record in batch:
            told = numbered(record.value)
            if told is not None:
                yield record, told


def since(log: EventLog, outbox: str, lasts: Mapping[int, int]) -> Iterator[list[Record]]:
    """The records of this outbox behind the sequences `lasts` (partition → sequence), in batches, in their order."""
    positions = {partition: _position(log, outbox, partition, last) for partition, last in lasts.items()}
    for batch in read_to_end(log, EVENTS.name, positions, limit=500):
        told = [(record, numbered(record.value)) for record in batch]
        found = [record for record, own in told if own and own[0] == outbox and own[1] > lasts[record.partition]]
        if found:
            yield found


def _position(log: EventLog, outbox: str, partition: int, last: int) -> int:
    """An offset at or before the first record of this outbox behind a sequence: steps back, each twice as far."""
    start, position, step = log.starts(EVENTS.name)[partition], log.ends(EVENTS.name)[partition], 1000
    while position > start and last:
        end, position, step = position, max(start, position - step), 2 * step
        reader = log.reader(EVENTS.name, {partition: position})
        try:
            first = _first(reader, outbox, end)
        finally:
            reader.close()
        if first is not None and first <= last:
            return position
    return start


def _first(reader: Reader, outbox: str, end: int) -> int | None:
    """The first sequence of this outbox before an offset."""
    while batch := reader.read(500, 1.0):
        for record in batch:
            told = numbered(record.value)
            if told is not None and told[0] == outbox:
                return told[1]
        if batch[-1].offset + 1 >= end:
            break
    return None
