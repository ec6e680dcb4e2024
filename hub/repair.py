"""What `hub.events` lacks, found by reading it as a reader does, and dealing with it: publish it again, or accept the gap.

An event that was lost cannot come back to its place: what came after it was folded. It is published anew behind all others, under
a new sequence, and versions decide what its news still change. An event of the partition then lets every reader pass the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from hub.errors import FatalError
from hub.event_log import EventLog, Record, read_to_end
from hub.ledger import outbox
from hub.ledger.metadata import AnyRow
from hub.losses import REPAIRED, repaired, settled_by, subject_of
from hub.sequences import Dealt, Loss, Place, follow, numbered, passed_over
from hub.worker.state import PLACE, read_place
from schemas.event import Event
from schemas.topics import EVENTS, PARTITIONS, STATE

HUB = "hub"


@dataclass(frozen=True)
class Gap:
    """A loss that was not dealt with, and what the outbox still has of it."""

    loss: Loss
    missing: int
    """How many sequences are missing; of offsets that are gone, as many as can be told."""
    rows: Sequence[AnyRow] = ()
    numbers: Loss | None = None
    """Of offsets that are gone: the same loss, as the sequence of the first record behind them tells it."""

    @property
    def foreign(self) -> bool:
        """Whether nothing is missing: the ledger never gave the number to which it leaps."""
        return self.loss.kind == "gap" and self.missing == 0

    def error(self) -> FatalError:
        """What is wrong here."""
        return FatalError("HUB-E2121", **self.loss._asdict()) if self.foreign else self.loss.error()

    @property
    def lost(self) -> int:
        """How many of them the outbox does not have."""
        return self.missing - len(self.rows)

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        told = [{"sequence": r.sequence, "type": r.type, "subject": r.subject, "case": r.case_id} for r in self.rows]
        return {**self.loss._asdict(), "missing": self.missing, "in_outbox": len(self.rows), "events": told}


@dataclass
class Findings:
    """What the log lacks: `gaps` between its records, and `tails`, partition → (last sequence there, last published)."""

    gaps: list[Gap] = field(default_factory=list)
    tails: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass
class _Partition:
    """One partition, read from where it starts."""

    place: Place
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
                self.place = Place(self.place.next_offset, known)


def find(log: EventLog, conn: Connection, outbox_id: str) -> Findings:
    """Read the log and compare. `conn` must be one look at the ledger, taken before the log is read."""
    given = outbox.sequence_ends(conn)

    def never(loss: Loss) -> bool:
        return loss.kind == "gap" and loss.outbox == outbox_id and loss.found > given.get(loss.partition, 0)

    starts, ends, places = log.starts(EVENTS.name), log.ends(EVENTS.name), folded_places(log)
    findings = Findings()
    for partition in sorted(ends):
        gone = passed_over(partition, places.get(partition, Place()), starts[partition], ends[partition])
        read = _read(log, partition, starts[partition], places.get(partition, Place()) if gone else None, never)
        losses = [gone, *read.losses] if gone else read.losses
        open_ = [loss for loss in losses if loss.offset not in read.settled]
        double = next((loss for loss in read.losses if gone and loss.offset == gone.offset), None)
        findings.gaps += [
            Gap(loss, 0) if never(loss) else _gap(conn, loss, outbox_id, double) for loss in open_ if loss is not double
        ]
        last = read.place.sequences.get(outbox_id, 0)
        if given.get(partition, 0) > last:
            findings.tails[partition] = (last, given[partition])
    return findings


def _read(log: EventLog, partition: int, start: int, known: Place | None, never: Callable[[Loss], bool]) -> _Partition:
    read = _Partition(Place(start, known.sequences if known else {}), start > 0 and known is None, never)
    for batch in read_to_end(log, EVENTS.name, {partition: start}):
        read.read(batch)
    return read


def _gap(conn: Connection, loss: Loss, outbox_id: str, double: Loss | None = None) -> Gap:
    if loss.kind == "gone" and double is not None:
        told = _gap(conn, double, outbox_id)
        return Gap(loss, told.missing, told.rows, double)
    if loss.kind != "gap":
        return Gap(loss, loss.found - loss.last if loss.kind == "gone" else 0)
    rows = outbox.numbered(conn, loss.partition, loss.last + 1, loss.found - 1) if loss.outbox == outbox_id else ()
    return Gap(loss, loss.found - loss.last - 1, rows)


def folded_places(log: EventLog) -> Mapping[int, Place]:
    """How far the processor has folded each partition."""
    places: dict[int, Place] = {}
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


def mend(conn: Connection, findings: Findings, now: datetime, by: str, reason: str | None = None) -> Mended:
    """Publish again what the outbox has and settle each gap; with a `reason`, also those of which events are lost for good.

    What was dealt with in a log that is gone stays so in the one that was published anew.
    """
    done, before = Mended(), _dealt_with(conn) if findings.gaps else {}
    for partition, (last, given) in findings.tails.items():
        done.published += outbox.send_again(conn, partition, last, given)
    for gap in findings.gaps:
        why = before.get(gap.loss.partition, {}).get((gap.loss.outbox, gap.loss.last, gap.loss.found), reason)
        if gap.loss.kind == "replaced" or (gap.lost and why is None):
            done.left.append(gap)
            continue
        losses = [gap.loss] if gap.numbers is None else [gap.loss, gap.numbers]
        told: dict[str, Any] = {"published": len(gap.rows), "accepted": gap.lost, "reason": why, "by": by}
        told["foreign"] = gap.foreign
        outbox.record(conn, [repaired(loss, now, **told) for loss in losses], HUB)
        outbox.publish_again(conn, [row.id for row in gap.rows])
        done.published += len(gap.rows)
        done.accepted += gap.lost
    return done
