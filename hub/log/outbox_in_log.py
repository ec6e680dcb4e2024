"""What the log holds of an outbox, for a ledger that may know less of it than the log does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hub.log.event_log import EventLog, Reader, Record, read_to_end
from hub.log.sequences import numbered
from schemas.topics import EVENTS

_LAST_FEW = 50
"""Records at the end of a partition among which the last one of an outbox is looked for: a foreign hand may write there too."""
FAR = 1_000_000
"""By so much a sequence may be ahead of what can be accounted for, as events may be lost from a log. Past it, it is forged."""
UNHEARD_OF = 10**12
"""No ledger gives one partition so many: a thousand a second for thirty years."""


def tails(log: EventLog, outbox: str, given: Mapping[int, int]) -> dict[int, int]:
    """Partition → the last sequence of this outbox that lies in the log. Reads a few records of each partition.

    `given` are the sequences that its ledger is known to have given; what is far from them was written by a foreign hand, and is
    passed over, as a ledger that took it over would go on from there.
    """
    ends, starts = log.ends(EVENTS.name), log.starts(EVENTS.name)
    own: dict[int, list[int]] = {}
    for record, told in _last_few(log):
        if told[0] == outbox:
            own.setdefault(record.partition, []).append(told[1])
    found: dict[int, int] = {}
    for partition, there in own.items():
        room = ends[partition] - starts[partition]
        if given.get(partition):
            bound = given[partition] + room + FAR  # each record has moved the ledger on by one at most
        else:
            bound = min(_smallest(log, outbox, partition, min(there), room) + room + FAR, UNHEARD_OF)
        last = max((sequence for sequence in there if sequence <= bound), default=0)
        found[partition] = last or _highest(log, outbox, partition, bound)
    return {partition: last for partition, last in found.items() if last}


def _smallest(log: EventLog, outbox: str, partition: int, seen: int, room: int) -> int:
    """The first sequence of an outbox whose ledger is new; `seen` is the smallest of the last few.

    A log whose beginning is not kept, or was trimmed, may begin with any number: a high one alone proves nothing.
    """
    return seen if seen <= room + FAR else min(_all(log, outbox, partition), default=seen)


def tails_at_least(log: EventLog, outbox: str, wanted: Mapping[int, int]) -> dict[int, int]:
    """As `tails`. Where it finds less than is `wanted`, all of the partition is read: strangers may have written since."""
    found = tails(log, outbox, wanted)
    for partition, last in wanted.items():
        if found.get(partition, 0) < last:
            found[partition] = max(found.get(partition, 0), _highest(log, outbox, partition, last + FAR))
    return found


def _highest(log: EventLog, outbox: str, partition: int, bound: int) -> int:
    """The highest sequence of this outbox in a partition, of those up to `bound`; 0 for none."""
    return max((sequence for sequence in _all(log, outbox, partition) if sequence <= bound), default=0)


def _all(log: EventLog, outbox: str, partition: int) -> Iterator[int]:
    """The sequences of this outbox in a partition, from its beginning."""
    for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]}):
        for record in batch:
            told = numbered(record.value)
            if told is not None and told[0] == outbox:
                yield told[1]


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


def since(log: EventLog, outbox: str, lasts: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[list[Record]]:
    """The records of this outbox behind the sequences `lasts` up to `ends` (partition → sequence), in batches, in their order."""
    positions = {partition: _position(log, outbox, partition, last) for partition, last in lasts.items()}
    for batch in read_to_end(log, EVENTS.name, positions, limit=500):
        told = [(record, numbered(record.value)) for record in batch]
        found = [
            record
            for record, own in told
            if own and own[0] == outbox and lasts[record.partition] < own[1] <= ends[record.partition]
        ]
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
