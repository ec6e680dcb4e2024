"""Takes from a backup the records that the log lacks and the ledger has trimmed: in order, under their old sequences, once each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hub.log.event_log import Outgoing
from hub.log.sequences import sequence_of
from hub.ops.backups import manifest, segments
from hub.ops.backups.manifest import Segment
from schemas.topics import EVENTS

MAX_BATCH = 2000
"""Records in one batch."""
Ends = Mapping[int, int]
"""Partition → a sequence."""


@dataclass(frozen=True)
class Filling:
    """The part of a backup to append: segments of partitions, each after the sequence in `above` of one outbox."""

    folder: Path
    outbox: str
    above: Ends
    segments: tuple[Segment, ...]

    def records(self) -> Iterator[list[Outgoing]]:
        """The records to append, in order, including those of foreign producers among them."""
        begun = {partition for partition, last in self.above.items() if not last}
        for segment in self.segments:
            wanted = list[Outgoing]()
            for _, key, value in segments.read(self.folder, segment):
                distance = _sequence(value, self.outbox) - self.above[segment.partition]
                if segment.partition in begun or distance > 0:
                    begun.add(segment.partition)
                    wanted.append(Outgoing(EVENTS.name, key or b"", value, segment.partition))
                elif distance == 0:
                    begun.add(segment.partition)
            yield from (wanted[start : start + MAX_BATCH] for start in range(0, len(wanted), MAX_BATCH))


def filling(folder: Path, outbox: str, above: Ends, floors: Ends) -> Filling | None:
    """The records of a backup after the sequences in `above`; None when the backup ends before the `floors`.

    Raises FatalError for a folder that cannot be read, or a file that has changed.
    """
    found = manifest.read(folder)
    if found is None or not found.finished:
        return None
    wanted = [each for each in found.segments if each.partition in above]
    wanted.sort(key=lambda each: (each.partition, each.first))
    for each in wanted:
        manifest.check(folder, each)
    of = {p: [each for each in wanted if each.partition == p] for p in above}
    if any(_last(folder, of[partition], outbox) < floors[partition] for partition in above):
        return None
    return Filling(folder, outbox, above, tuple(wanted))


def records_of(folder: Path, outbox: str, partition: int, first: int, last: int) -> dict[int, bytes]:
    """Sequence → record, of one outbox's records from `first` to `last` that a backup has."""
    found = manifest.read(folder)
    of_partition = [each for each in found.segments if each.partition == partition] if found is not None else []
    records: dict[int, bytes] = {}
    for segment in of_partition:
        manifest.check(folder, segment)
        for _, _, value in segments.read(folder, segment):
            sequence = _sequence(value, outbox)
            if value is not None and first <= sequence <= last:
                records.setdefault(sequence, value)
    return records


def _last(folder: Path, of_partition: list[Segment], outbox: str) -> int:
    """The last sequence of an outbox in the segments of a partition."""
    for segment in reversed(of_partition):
        records = segments.read(folder, segment)
        last = max((_sequence(value, outbox) for _, _, value in records), default=0)
        if last:
            return last
    return 0


def _sequence(value: bytes | None, outbox: str) -> int:
    own = sequence_of(value)
    return own[1] if own is not None and own[0] == outbox else 0
