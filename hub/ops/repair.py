"""Finds gaps in the sequences of `hub.events`, and repairs them: publishes the lost events again, or accepts the loss.

A lost event cannot return to its offset, as later events are folded already. It is published again at the end under a new sequence,
and entity versions decide which of its fields still apply. A repair event on the partition then lets every reader pass the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from hub.errors import FatalError
from hub.ledger import outbox, trimmed
from hub.ledger.database import AnyRow
from hub.log.event_log import EventLog, Record, read_to_end
from hub.log.sequence_gaps import REPAIRED, repaired, settled_by, subject_of
from hub.log.sequences import Loss, ReadPosition, SettledOffsets, follow, sequence_of, skipped_offsets, without_sequence
from hub.ops.backups.filling import records_of
from hub.processor.state import POSITION_KEY, read_position
from schemas.envelope import HUB_INSTANCE, Event
from schemas.topics import EVENTS, PARTITIONS, STATE


@dataclass(frozen=True)
class Gap:
    """An unsettled loss, and the events of it that the outbox still has."""

    loss: Loss
    missing: int
    """How many sequences are missing; of missing offsets, as many as can be determined."""
    rows: Sequence[AnyRow] = ()
    numbers: Loss | None = None
    """Of missing offsets: the same loss in sequences, as the first record after them shows it."""
    trimmed: int = 0
    """How many of them the outbox has trimmed, as the log had them."""
    in_backup: Sequence[Event] = ()
    """The trimmed events that a backup has."""

    @property
    def foreign(self) -> bool:
        """Whether nothing is missing: the gap ends at a sequence that the ledger never assigned, from a foreign producer."""
        return self.loss.kind == "gap" and self.missing == 0

    def error(self) -> FatalError:
        """The gap as an error."""
        return FatalError("HUB-E2121", **self.loss._asdict()) if self.foreign else self.loss.error()

    @property
    def lost(self) -> int:
        """How many of the missing events neither the outbox nor a backup has."""
        return self.missing - len(self.rows) - len(self.in_backup)

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        events = [{"sequence": r.sequence, "type": r.type, "subject": r.subject, "case": r.case_id} for r in self.rows]
        more = {"missing": self.missing, "in_outbox": len(self.rows), "events": events}
        return {**self.loss._asdict(), **more, "trimmed": self.trimmed, "in_backup": len(self.in_backup)}


@dataclass
class Findings:
    """What the log lacks: `gaps` between its records, and `tails`: partition → (last sequence in the log, last published)."""

    gaps: list[Gap] = field(default_factory=list)
    tails: dict[int, tuple[int, int]] = field(default_factory=dict)
    lacking: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Missing tails that the ledger has trimmed in part: partition → (last sequence in the log, last trimmed)."""


@dataclass
class _Partition:
    """One partition, read from its first offset."""

    place: ReadPosition
    learning: bool
    """Whether the first sequence of each outbox is accepted as it comes: retention removed the earlier, folded records."""
    is_unassigned: Callable[[Loss], bool]
    """Whether a loss ends at a sequence that was never assigned: then it does not count."""
    losses: list[Loss] = field(default_factory=list)
    settled: SettledOffsets = field(default_factory=dict)

    def read(self, records: Sequence[Record]) -> None:
        self.settled |= settled_by(records)
        while records:
            self._learn(records)
            found = follow(self.place, records, {loss.offset: self.is_unassigned(loss) for loss in self.losses})
            self.place = found.place
            if found.loss is None:
                return
            self.losses.append(found.loss)
            records = records[found.whole :]

    def _learn(self, records: Sequence[Record]) -> None:
        for own in map(sequence_of, (record.value for record in records)) if self.learning else ():
            if own is not None and own[0] not in self.place.sequences:
                known = {**self.place.sequences, own[0]: own[1] - 1}
                self.place = ReadPosition(self.place.next_offset, known)


def find_gaps(log: EventLog, conn: Connection, outbox_id: str) -> Findings:
    """Read the log and find its gaps. `conn` must be one snapshot of the ledger, taken before the log is read."""
    given, floors = outbox.sequence_ends(conn), trimmed.sequences(conn)

    def is_unassigned(loss: Loss) -> bool:
        return loss.kind == "gap" and loss.outbox == outbox_id and loss.found > given.get(loss.partition, 0)

    starts, ends, places = log.starts(EVENTS.name), log.ends(EVENTS.name), folded_places(log)
    findings = Findings()
    for partition in sorted(ends):
        gone = skipped_offsets(partition, places.get(partition, ReadPosition()), starts[partition], ends[partition])
        read = _read(
            log, partition, starts[partition], places.get(partition, ReadPosition()) if gone else None, is_unassigned
        )
        losses = [gone, *read.losses] if gone else read.losses
        open_ = [loss for loss in losses if loss.offset not in read.settled]
        same_in_sequences = next((loss for loss in read.losses if gone and loss.offset == gone.offset), None)
        findings.gaps += [
            Gap(loss, 0)
            if is_unassigned(loss)
            else _gap(conn, loss, outbox_id, floors.get(partition, 0), same_in_sequences)
            for loss in open_
            if loss is not same_in_sequences
        ]
        last = read.place.sequences.get(outbox_id, 0)
        if floors.get(partition, 0) > last:
            findings.lacking[partition] = (last, floors[partition])
        elif given.get(partition, 0) > last:
            findings.tails[partition] = (last, given[partition])
    return findings


def _read(
    log: EventLog, partition: int, start: int, known: ReadPosition | None, is_unassigned: Callable[[Loss], bool]
) -> _Partition:
    read = _Partition(ReadPosition(start, known.sequences if known else {}), start > 0 and known is None, is_unassigned)
    for batch in read_to_end(log, EVENTS.name, {partition: start}):
        read.read(batch)
    return read


def _gap(conn: Connection, loss: Loss, outbox_id: str, floor: int, same_in_sequences: Loss | None = None) -> Gap:
    if loss.kind == "gone" and same_in_sequences is not None:
        return replace(_gap(conn, same_in_sequences, outbox_id, floor), loss=loss, numbers=same_in_sequences)
    if loss.kind != "gap":
        return Gap(loss, loss.found - loss.last if loss.kind == "gone" else 0)
    rows = outbox.rows_in_range(conn, loss.partition, loss.last + 1, loss.found - 1) if loss.outbox == outbox_id else ()
    below = sum(row.sequence <= floor for row in rows)
    gone = max(0, min(floor, loss.found - 1) - loss.last) - below if loss.outbox == outbox_id else 0
    return Gap(loss, loss.found - loss.last - 1, rows, trimmed=gone)


def with_backup(found: Findings, folder: Path, outbox_id: str) -> Findings:
    """The same findings, with the trimmed events that a backup has."""
    gaps = [_from_backup(gap, folder, outbox_id) if gap.trimmed else gap for gap in found.gaps]
    return replace(found, gaps=gaps)


def _from_backup(gap: Gap, folder: Path, outbox_id: str) -> Gap:
    numbers, ours = gap.numbers or gap.loss, {row.sequence for row in gap.rows}
    records = records_of(folder, outbox_id, numbers.partition, numbers.last + 1, numbers.found - 1)
    events = [
        Event.from_json(without_sequence(raw)) for sequence, raw in sorted(records.items()) if sequence not in ours
    ]
    return replace(gap, in_backup=events)


def folded_places(log: EventLog) -> Mapping[int, ReadPosition]:
    """Partition → the processor's read position."""
    places: dict[int, ReadPosition] = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            place = read_position(record.value) if record.key == POSITION_KEY else None
            if place is not None and place.next_offset >= places.get(record.partition, place).next_offset:
                places[record.partition] = place
    return places


def _settled_gaps(conn: Connection) -> dict[int, dict[tuple[str, int, int], str]]:
    """Partition → (outbox, last, found) → why that gap was settled, by all repair events so far."""
    settled: dict[int, dict[tuple[str, int, int], str]] = {}
    for partition in range(PARTITIONS):
        for row in outbox.of_subject(conn, subject_of(partition)):
            if row.type == REPAIRED:
                data = Event.from_json(row.body).data
                gap = (str(data["outbox"]), int(data["last"]), int(data["found"]))
                settled.setdefault(partition, {})[gap] = str(data["reason"] or "published again")
    return settled


@dataclass
class RepairResult:
    """The result of a repair."""

    published: int = 0
    accepted: int = 0
    left: list[Gap] = field(default_factory=list)
    """Gaps that remain: some of their events are lost, and no person has accepted that."""
    backup: str = ""
    """The backup that was searched for trimmed events."""


def apply_repair(
    conn: Connection, findings: Findings, now: datetime, by: str, reason: str | None = None
) -> RepairResult:
    """Publish again what the outbox has and settle each gap; with a `reason`, also gaps with events that are lost for good.

    A gap that was settled in a lost log stays settled in the log that was published again from the ledger.
    """
    done, before = RepairResult(), _settled_gaps(conn) if findings.gaps else {}
    for partition, (last, given) in findings.tails.items():
        done.published += outbox.resend(conn, partition, last, given)
    for gap in findings.gaps:
        settled = before.get(gap.loss.partition, {}).get((gap.loss.outbox, gap.loss.last, gap.loss.found))
        if settled is not None:  # that repair published the events of the backup again, elsewhere in the log
            gap = replace(gap, in_backup=())
        why = settled or reason
        if gap.loss.kind == "replaced" or (gap.lost and why is None):
            done.left.append(gap)
            continue
        losses = [gap.loss] if gap.numbers is None else [gap.loss, gap.numbers]
        published = len(gap.rows) + len(gap.in_backup)
        facts: dict[str, Any] = {"published": published, "accepted": gap.lost, "reason": why, "by": by}
        facts["foreign"] = gap.foreign
        outbox.record(conn, [repaired(loss, now, **facts) for loss in losses], HUB_INSTANCE)
        outbox.resequence(conn, [row.id for row in gap.rows])
        outbox.restore_trimmed(conn, [(gap.loss.partition, event) for event in gap.in_backup])
        done.published += published
        done.accepted += gap.lost
    return done
