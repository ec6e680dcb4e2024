"""Proof, from the log, the ledger and the boards alone, that no event is lost and no call is left uncertain.

The audit compares the stored records and trusts no counter of any program. It may run while the hub does: events and commands
in flight are counted as such, and become a finding only after `GRACE_PERIOD`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import orjson
from sqlalchemy import Connection, select

from hub.ledger import positions
from hub.ledger.commands import commands
from hub.ledger.database import AnyRow
from hub.ledger.outbox import outbox, sequence_ends
from hub.ledger.parked import parked
from hub.log.event_log import EventLog, read_to_end
from hub.log.sequence_gaps import repair_data
from hub.log.sequences import sequence_of
from hub.replay.audit import views
from hub.replay.audit.boards import BoardAudit
from hub.replay.audit.cases import CaseAudit, CrossPartitionFacts, IsForeign
from hub.replay.audit.reading import IntegerRanges, LedgerEvents, TrimmedEvents
from hub.replay.audit.report import GRACE_PERIOD, MAX_EXAMPLES, Report
from schemas.envelope import Event, derived_id, format_time
from schemas.topics import COMMANDS, EVENTS


@dataclass
class _LogContents:
    """What `hub.events` holds, as far as the audit needs it."""

    ids: dict[str, int] = field(default_factory=dict)
    """Event id → how many records have it."""
    sequences: dict[int, IntegerRanges] = field(default_factory=lambda: defaultdict(IntegerRanges))
    settled: dict[int, IntegerRanges] = field(default_factory=lambda: defaultdict(IntegerRanges))
    """Missing sequences that a repair settled: published again, or accepted as lost with a reason."""
    ignored: int = 0
    unreadable: int = 0
    records: int = 0


LastSequences = Callable[[], Mapping[int, int]]
"""Partition → the last sequence that the ledger has assigned by the time of the call."""


def audit(
    log: EventLog,
    conn: Connection,
    outbox_id: str,
    now: datetime,
    last_sequences: LastSequences,
    boards: Connection | None = None,
) -> Report:
    """Compare the log, the processor's state, the shared view, the ledger and the boards.

    `conn` and `boards` must each be one consistent snapshot, taken before the log is read.

    `last_sequences` is called after the log was read, and must read the ledger afresh: the log may hold events that were
    sequenced after the snapshot.
    """
    report, board_audit = Report(), BoardAudit.of(boards)
    ledger, trimmed = _ledger(conn), TrimmedEvents.of(conn)
    contents = _read_log(log, outbox_id)
    late = format_time(now - GRACE_PERIOD)
    _intake(report, ledger, trimmed, contents, late)
    _sequences(report, last_sequences(), contents)
    overdue, known = (now - GRACE_PERIOD).timestamp(), LedgerEvents(ledger, trimmed)
    facts = CaseAudit(report, log, _discarded(conn), board_audit, overdue, _foreign(conn, known, outbox_id)).run()
    views.compare(report, log, facts, overdue)
    board_audit.compare(report)
    _commands(report, log, conn, late, known)
    _parked(report, conn, facts, overdue)
    return report


def _ledger(conn: Connection) -> dict[str, tuple[str | None, str]]:
    """Event id → when it was published and when it was recorded, of the events with an outbox row."""
    rows = conn.execute(select(outbox.c.event_id, outbox.c.published_at, outbox.c.recorded_at))
    return {row.event_id: (row.published_at, row.recorded_at) for row in rows}


def _read_log(log: EventLog, outbox_id: str) -> _LogContents:
    contents = _LogContents()
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for record in batch:
            contents.records += 1
            try:
                event = orjson.loads(record.value or b"")
                contents.ids[event["id"]] = contents.ids.get(event["id"], 0) + 1
            except (orjson.JSONDecodeError, KeyError, TypeError):
                contents.unreadable += 1
                continue
            contents.ignored += event.get("type") == "hub.delivery.ignored"
            repair = repair_data(record)
            if (
                repair is not None
                and repair.get("outbox") == outbox_id
                and _are_int(repair.get("last"), repair.get("found"))
            ):
                contents.settled[record.partition].add(repair["last"] + 1, repair["found"] - 1)
            own = sequence_of(record.value)
            if own is not None and own[0] == outbox_id:
                contents.sequences[record.partition].add(own[1])
    return contents


def _are_int(*values: object) -> bool:
    return all(isinstance(value, int) for value in values)


def _intake(
    report: Report, ledger: dict[str, tuple[str | None, str]], trimmed: TrimmedEvents, contents: _LogContents, late: str
) -> None:
    """Every accepted event is in the log: once by its id, however often it was written."""
    trimmed.mark_in_log(contents.ids)
    waiting = {id_ for id_, (published, _) in ledger.items() if published is None}
    report.counts |= {
        "accepted": len(ledger) + len(trimmed),
        "trimmed": len(trimmed),
        "on_their_way": len(waiting),
        "in_the_log": len(contents.ids),
        "records": contents.records,
        "repeats": sum(times - 1 for times in contents.ids.values()),
        "ignored": contents.ignored,
        "unreadable": contents.unreadable,
    }
    report.find(
        "published, but not in the log",
        [id_ for id_ in ledger if id_ not in waiting and id_ not in contents.ids],
        "hub.events",
    )
    report.find("published and trimmed, but not in the log", trimmed.missing_from_log(), "hub.events")
    slow = [id_ for id_ in waiting if ledger[id_][1] < late and id_ not in contents.ids]
    report.find("not in the log after too long", slow, "ledger: outbox")


def _foreign(conn: Connection, known: Container[str], outbox_id: str) -> IsForeign:
    """A test for events that no outbox of this ledger wrote. An event whose sequence was assigned after the snapshot passes."""
    ends = sequence_ends(conn)

    def is_foreign(partition: int, event: Event) -> bool:
        if event.outbox is None or event.sequence is None:
            return True
        is_newer = event.outbox == outbox_id and int(event.sequence) > ends.get(partition, 0)
        return not is_newer and event.id not in known

    return is_foreign


def _sequences(report: Report, last_sequences: Mapping[int, int], contents: _LogContents) -> None:
    """Every partition holds the sequences from 1 to the last that the ledger assigned, without a gap, and none beyond."""
    beyond = [str(p) for p, numbers in sorted(contents.sequences.items()) if numbers.largest > last_sequences.get(p, 0)]
    report.find("partitions with sequences that the ledger never gave", beyond, "hub.events")
    for partition, numbers in sorted(contents.sequences.items()):
        last = min(numbers.largest, last_sequences.get(partition, 0))
        for start, end in zip(contents.settled[partition].starts, contents.settled[partition].ends, strict=True):
            numbers.add(start, end)
        gaps = list(numbers.missing(last))
        examples = (f"{n:012}" for start, end in gaps for n in range(start, end + 1))
        report.find(
            f"gaps in the sequence of partition {partition}",
            itertools.islice(examples, MAX_EXAMPLES),
            f"hub.events/{partition}",
            sum(end - start + 1 for start, end in gaps),
        )


def _discarded(conn: Connection) -> set[str]:
    """Refs of the events that the ledger has as discarded."""
    is_discarded = parked.c.state == "discarded"
    return set(conn.execute(select(parked.c.ref).where(is_discarded, parked.c.kind == "event")).scalars())


def _parked(report: Report, conn: Connection, facts: CrossPartitionFacts, late: float) -> None:
    """The list of parked work shows every event that the processor has parked, and no other."""
    if report.counts["commands_on_their_way"]:
        return  # the commands topic carries the records about parked work: the list is not up to date yet
    rows = {
        row.ref: row.state
        for row in conn.execute(select(parked.c.ref, parked.c.state, parked.c.kind))
        if _is_event(row)
    }
    hidden = [ref for ref, since in facts.parked.items() if ref not in rows and since < late]
    report.find("parked events that no list shows", hidden, "ledger: parked")
    if not facts.behind:
        stale = [ref for ref, state in rows.items() if state == "open" and ref not in facts.parked]
        report.find("listed as parked, but held nowhere", stale, "ledger: parked")


def _is_event(row: AnyRow) -> bool:
    return row.kind == "event" and str(row.ref).startswith(("event/", f"record/{EVENTS.name}/"))


def _commands(report: Report, log: EventLog, conn: Connection, late: str, known: Container[str]) -> None:
    """Every requested command is in the ledger, none stays uncertain for too long, and every effect has its event."""
    rows = {row.id: row for row in conn.execute(select(commands))}
    lost, waiting = _missing(log, conn, set(rows))
    report.counts |= {"commands": len(rows), "commands_on_their_way": waiting}
    for row in rows.values():
        state = f"commands_{row.state.lower()}"
        report.counts[state] = report.counts.get(state, 0) + 1
    doubtful = [row.id for row in rows.values() if row.state in ("SENDING", "UNKNOWN") and row.updated_at < late]
    report.find("calls in doubt after too long", doubtful, "ledger: commands")
    report.find("commands that were read and are not in the ledger", lost, "ledger: commands")
    opened = {row.ref for row in conn.execute(select(parked.c.ref).where(parked.c.state == "open"))}
    silent = [row.id for row in rows.values() if row.state == "PARKED" and f"command/{row.id}" not in opened]
    report.find("parked commands that no list shows", silent, "ledger: parked")
    report.counts["parked"] = len(opened)
    _effects(report, known, [row.id for row in rows.values() if row.state == "DONE"])


def _missing(log: EventLog, conn: Connection, known: set[str]) -> tuple[list[str], int]:
    """Ids of the commands that the executor has read and the ledger lacks, and how many records it has not read yet."""
    read_to = positions.of_reader(conn, "executor", COMMANDS.name)
    parked_refs = {row.ref for row in conn.execute(select(parked.c.ref).where(parked.c.kind == "command"))}
    lost, waiting = [], 0
    for batch in read_to_end(log, COMMANDS.name, log.starts(COMMANDS.name)):
        for record in batch:
            if record.offset >= read_to.get(record.partition, 0):
                waiting += 1
                continue
            id_ = _command_id(record.value or b"")
            # An unreadable command is parked under its position in the log, whatever id it may have.
            where = f"record/{record.topic}/{record.partition}/{record.offset}"
            if id_ and id_ not in known and not parked_refs & {f"command/{id_}", where}:
                lost.append(id_)
    return lost, waiting


def _command_id(raw: bytes) -> str | None:
    """The id of the command in a record; None for the other kinds of record on that topic."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value.get("id") if isinstance(value, dict) and "record" not in value else None


def _effects(report: Report, known: Container[str], done: list[str]) -> None:
    """Every command that is done has its result event."""
    report.counts["effects"] = len(done)
    unreported = [id_ for id_ in done if derived_id("result", id_, "done") not in known]
    report.find("effects that no event tells of", unreported, "ledger: outbox")
