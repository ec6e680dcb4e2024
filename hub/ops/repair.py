"""What `hub.events` lacks, found by reading it as a reader does, and dealing with it: publish it again, or accept the gap.

An event that was lost cannot come back to its place: what came after it was folded. It is published anew behind all others, under
a new sequence, and versions decide what its news still change. An event of the partition then lets every reader pass the gap.
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
from hub.log.sequences import Dealt, Loss, ReadPosition, follow, numbered, own_bytes, passed_over
from hub.ops.backups.filling import records_of
from hub.processor.state import PLACE, read_place
from schemas.envelope import HUB, Event
from schemas.topics import EVENTS, PARTITIONS, STATE


@dataclass(frozen=True)
class Gap:
    """A loss that was not dealt with, and what the outbox still has of it."""

    loss: Loss
    missing: int
    """How many sequences are missing; of offsets that are gone, as many as can be told."""
    rows: Sequence[AnyRow] = ()
    numbers: Loss | None = None
    """Of offsets that are gone: the same loss, as the sequence of the first record behind them tells it."""
    trimmed: int = 0
    """How many of them the outbox has no more by design: the log had them."""
    back: Sequence[Event] = ()
    """Those of them that a backup has."""

    @property
    def foreign(self) -> bool:
        """Whether nothing is missing: the ledger never gave the number to which it leaps."""
        return self.loss.kind == "gap" and self.missing == 0

    def error(self) -> FatalError:
        """What is wrong here."""
        return FatalError("HUB-E2121", **self.loss._asdict()) if self.foreign else self.loss.error()

    @property
    def lost(self) -> int:
        """How many of them neither the outbox nor a backup has."""
        return self.missing - len(self.rows) - len(self.back)

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        told = [{"sequence": r.sequence, "type": r.type, "subject": r.subject, "case": r.case_id} for r in self.rows]
        more = {"missing": self.missing, "in_outbox": len(self.rows), "events": told}
        return {**self.loss._asdict(), **more, "trimmed": self.trimmed, "in_backup": len(self.back)}


@dataclass
class Findings:
    """What the log lacks: `gaps` between its records, and `tails`, partition → (last sequence there, last published)."""

    gaps: list[Gap] = field(default_factory=list)
    tails: dict[int, tuple[int, int]] = field(default_factory=dict)
    lacking: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of such ends those of which a part is trimmed: partition → (last sequence there, last trimmed)."""


@dataclass
class _Partition:
    """One partition, read from where it starts."""

    place: ReadPosition
    learning: bool
    """Whether the first sequence of an outbox is taken as it comes: what was before it is kept no more, and was folded."""
    never: Callable[[Loss], bool]
    """Whether a loss leaps to a number that was never given: then it counts for nothing."""
    losses: list[Loss] = field(default_factory=list)
    settled: Dealt = field(default_factory=dict)

    def read(self, records: Sequence[Record]) -> None:
        self.settled |= settled_by(records)
        while records:
            self._learn(records)
            found = follow(self.place, records, {loss.offset: self.never(loss) for loss in self.losses})
            self.place = found.place
            if found.loss is None:
                return
            self.losses.append(found.loss)
            records = records[found.whole :]

    def _learn(self, records: Sequence[Record]) -> None:
        for told in map(numbered, (record.value for record in records)) if self.learning else ():
            if told is not None and told[0] not in self.place.sequences:
                known = {**self.place.sequences, told[0]: told[1] - 1}
                self.place = ReadPosition(self.place.next_offset, known)


def find(log: EventLog, conn: Connection, outbox_id: str) -> Findings:
    """Read the log and compare. `conn` must be one look at the ledger, taken before the log is read."""
    given, floors = outbox.sequence_ends(conn), trimmed.sequences(conn)

    def never(loss: Loss) -> bool:
        return loss.kind == "gap" and loss.outbox == outbox_id and loss.found > given.get(loss.partition, 0)

    starts, ends, places = log.starts(EVENTS.name), log.ends(EVENTS.name), folded_places(log)
    findings = Findings()
    for partition in sorted(ends):
        gone = passed_over(partition, places.get(partition, ReadPosition()), starts[partition], ends[partition])
        read = _read(log, partition, starts[partition], places.get(partition, ReadPosition()) if gone else None, never)
        losses = [gone, *read.losses] if gone else read.losses
        open_ = [loss for loss in losses if loss.offset not in read.settled]
        double = next((loss for loss in read.losses if gone and loss.offset == gone.offset), None)
        findings.gaps += [
            Gap(loss, 0) if never(loss) else _gap(conn, loss, outbox_id, floors.get(partition, 0), double)
            for loss in open_
            if loss is not double
        ]
        last = read.place.sequences.get(outbox_id, 0)
        if floors.get(partition, 0) > last:
            findings.lacking[partition] = (last, floors[partition])
        elif given.get(partition, 0) > last:
            findings.tails[partition] = (last, given[partition])
    return findings


def _read(
    log: EventLog, partition: int, start: int, known: ReadPosition | None, never: Callable[[Loss], bool]
) -> _Partition:
    read = _Partition(ReadPosition(start, known.sequences if known else {}), start > 0 and known is None, never)
    for batch in read_to_end(log, EVENTS.name, {partition: start}):
        read.read(batch)
    return read


def _gap(conn: Connection, loss: Loss, outbox_id: str, floor: int, double: Loss | None = None) -> Gap:
    if loss.kind == "gone" and double is not None:
        return replace(_gap(conn, double, outbox_id, floor), loss=loss, numbers=double)
    if loss.kind != "gap":
        return Gap(loss, loss.found - loss.last if loss.kind == "gone" else 0)
    rows = outbox.numbered(conn, loss.partition, loss.last + 1, loss.found - 1) if loss.outbox == outbox_id else ()
    below = sum(row.sequence <= floor for row in rows)
    gone = max(0, min(floor, loss.found - 1) - loss.last) - below if loss.outbox == outbox_id else 0
    return Gap(loss, loss.found - loss.last - 1, rows, trimmed=gone)


def with_backup(found: Findings, folder: Path, outbox_id: str) -> Findings:
    """The same, with what a backup has of what was trimmed."""
    gaps = [_from_backup(gap, folder, outbox_id) if gap.trimmed else gap for gap in found.gaps]
    return replace(found, gaps=gaps)


def _from_backup(gap: Gap, folder: Path, outbox_id: str) -> Gap:
    numbers, ours = gap.numbers or gap.loss, {row.sequence for row in gap.rows}
    there = records_of(folder, outbox_id, numbers.partition, numbers.last + 1, numbers.found - 1)
    back = [Event.from_json(own_bytes(raw)) for sequence, raw in sorted(there.items()) if sequence not in ours]
    return replace(gap, back=back)


def folded_places(log: EventLog) -> Mapping[int, ReadPosition]:
    """How far the processor has folded each partition."""
    places: dict[int, ReadPosition] = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            place = read_place(record.value) if record.key == PLACE else None
            if place is not None and place.next_offset >= places.get(record.partition, place).next_offset:
                places[record.partition] = place
    return places


def _dealt_with(conn: Connection) -> dict[int, dict[tuple[str, int, int], str]]:
    """Partition → (outbox, last, found) → why that gap was settled, by the facts of all repairs so far."""
    found: dict[int, dict[tuple[str, int, int], str]] = {}
    for partition in range(PARTITIONS):
        for row in outbox.of_subject(conn, subject_of(partition)):
            if row.type == REPAIRED:
                data = Event.from_json(row.body).data
                gap = (str(data["outbox"]), int(data["last"]), int(data["found"]))
                found.setdefault(partition, {})[gap] = str(data["reason"] or "published again")
    return found


@dataclass
class Mended:
    """What a repair has done."""

    published: int = 0
    accepted: int = 0
    left: list[Gap] = field(default_factory=list)
    """Gaps that stay: the outbox lacks some of their events, and nobody has accepted that."""
    backup: str = ""
    """Where what was trimmed was looked for."""


def mend(conn: Connection, findings: Findings, now: datetime, by: str, reason: str | None = None) -> Mended:
    """Publish again what the outbox has and settle each gap; with a `reason`, also those of which events are lost for good.

    What was dealt with in a log that is gone stays so in the one that was published anew.
    """
    done, before = Mended(), _dealt_with(conn) if findings.gaps else {}
    for partition, (last, given) in findings.tails.items():
        done.published += outbox.send_again(conn, partition, last, given)
    for gap in findings.gaps:
        settled = before.get(gap.loss.partition, {}).get((gap.loss.outbox, gap.loss.last, gap.loss.found))
        gap = replace(gap, back=()) if settled is not None else gap  # what was published again then lies elsewhere
        why = settled or reason
        if gap.loss.kind == "replaced" or (gap.lost and why is None):
            done.left.append(gap)
            continue
        losses = [gap.loss] if gap.numbers is None else [gap.loss, gap.numbers]
        published = len(gap.rows) + len(gap.back)
        told: dict[str, Any] = {"published": published, "accepted": gap.lost, "reason": why, "by": by}
        told["foreign"] = gap.foreign
        outbox.record(conn, [repaired(loss, now, **told) for loss in losses], HUB)
        outbox.publish_again(conn, [row.id for row in gap.rows])
        outbox.bring_back(conn, [(gap.loss.partition, event) for event in gap.back])
        done.published += published
        done.accepted += gap.lost
    return done
