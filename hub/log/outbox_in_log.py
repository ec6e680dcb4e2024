"""Finds an outbox's events in the log, for a ledger that may be behind the log (after a restore or failover)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hub.log.event_log import EventLog, Reader, Record, read_to_end
from hub.log.sequences import sequence_of
from schemas.topics import EVENTS

_TAIL_RECORDS = 50
"""How many records at a partition's end to search for an outbox's last one: foreign producers may write there, too."""
MAX_SEQUENCE_LEAD = 1_000_000
"""How far a sequence may be ahead of the records that explain it, as a log can lose events. A sequence beyond that is forged."""
MAX_PLAUSIBLE_SEQUENCE = 10**12
"""More than any ledger assigns to one partition: a thousand events a second for thirty years."""


def tails(log: EventLog, outbox: str, given: Mapping[int, int]) -> dict[int, int]:
    """Partition → the last sequence of this outbox in the log. Reads a few records of each partition.

    `given` are the sequences that its ledger is known to have assigned. A sequence far ahead of them comes from a foreign producer
    and is ignored: a ledger that adopted it would continue from there.
    """
    ends, starts = log.ends(EVENTS.name), log.starts(EVENTS.name)
    own: dict[int, list[int]] = {}
    for record, (record_outbox, sequence) in _tail_records(log):
        if record_outbox == outbox:
            own.setdefault(record.partition, []).append(sequence)
    lasts: dict[int, int] = {}
    for partition, tail in own.items():
        size = ends[partition] - starts[partition]
        if given.get(partition):
            bound = given[partition] + size + MAX_SEQUENCE_LEAD  # each record advanced the ledger by at most one
        else:
            bound = min(
                _smallest(log, outbox, partition, min(tail), size) + size + MAX_SEQUENCE_LEAD, MAX_PLAUSIBLE_SEQUENCE
            )
        last = max((sequence for sequence in tail if sequence <= bound), default=0)
        lasts[partition] = last or _highest(log, outbox, partition, bound)
    return {partition: last for partition, last in lasts.items() if last}


def _smallest(log: EventLog, outbox: str, partition: int, tail_minimum: int, size: int) -> int:
    """The first sequence of an outbox whose ledger is new; `tail_minimum` is the smallest of the tail records.

    A log that no longer retains its beginning may start with any sequence: a high one alone proves nothing.
    """
    if tail_minimum <= size + MAX_SEQUENCE_LEAD:
        return tail_minimum
    return min(_all(log, outbox, partition), default=tail_minimum)


def tails_at_least(log: EventLog, outbox: str, wanted: Mapping[int, int]) -> dict[int, int]:
    """As `tails`, but reads the whole partition where that finds less than `wanted`: foreign producers may have written since."""
    lasts = tails(log, outbox, wanted)
    for partition, last in wanted.items():
        if lasts.get(partition, 0) < last:
            lasts[partition] = max(lasts.get(partition, 0), _highest(log, outbox, partition, last + MAX_SEQUENCE_LEAD))
    return lasts


def _highest(log: EventLog, outbox: str, partition: int, bound: int) -> int:
    """The highest sequence of this outbox in a partition, up to `bound`; 0 for none."""
    return max((sequence for sequence in _all(log, outbox, partition) if sequence <= bound), default=0)


def _all(log: EventLog, outbox: str, partition: int) -> Iterator[int]:
    """The sequences of this outbox in a partition, from its beginning."""
    for batch in read_to_end(log, EVENTS.name, {partition: log.starts(EVENTS.name)[partition]}):
        for record in batch:
            numbered = sequence_of(record.value)
            if numbered is not None and numbered[0] == outbox:
                yield numbered[1]


def latest_outbox(log: EventLog) -> str | None:
    """The outbox that wrote to the log last; None when none has. Reads a few records of each partition."""
    latest = max(_tail_records(log), key=lambda each: (each[0].time, each[0].offset), default=None)
    return latest[1][0] if latest else None


def _tail_records(log: EventLog) -> Iterator[tuple[Record, tuple[str, int]]]:
    """The records with a sequence among the last ones of each partition, each with its outbox and sequence."""
    ends, starts = log.ends(EVENTS.name), log.starts(EVENTS.name)
    positions = {partition: max(starts[partition], end - _TAIL_RECORDS) for partition, end in ends.items()}
    for batch in read_to_end(log, EVENTS.name, positions):
        for record in batch:
            numbered = sequence_of(record.value)
            if numbered is not None:
                yield record, numbered


def records_since(
    log: EventLog, outbox: str, lasts: Mapping[int, int], ends: Mapping[int, int]
) -> Iterator[list[Record]]:
    """The records of this outbox after the sequences `lasts`, up to `ends` (partition → sequence), in batches, in log order."""
    positions = {partition: _position(log, outbox, partition, last) for partition, last in lasts.items()}
    for batch in read_to_end(log, EVENTS.name, positions, limit=500):
        numbered = [(record, sequence_of(record.value)) for record in batch]
        records = [
            record
            for record, own in numbered
            if own and own[0] == outbox and lasts[record.partition] < own[1] <= ends[record.partition]
        ]
        if records:
            yield records


def _position(log: EventLog, outbox: str, partition: int, last: int) -> int:
    """An offset at or before this outbox's first record after a sequence: searches backwards in steps that double."""
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
            numbered = sequence_of(record.value)
            if numbered is not None and numbered[0] == outbox:
                return numbered[1]
        if batch[-1].offset + 1 >= end:
            break
    return None
