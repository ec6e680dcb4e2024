"""Proof, from the log, the ledger and the boards alone, that nothing was lost and nothing is in doubt.

The audit reads what lies there and compares; it trusts no counter that a program kept. It holds while the hub runs: what is
still on its way is counted as such, and is a finding only when it has been on its way for too long.
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
from hub.log.sequence_gaps import told_repaired
from hub.log.sequences import numbered
from hub.replay.audit import views
from hub.replay.audit.boards import BoardAudit
from hub.replay.audit.cases import CaseAudit, CrossPartitionFacts, IsForeign
from hub.replay.audit.reading import LedgerEvents, Runs, Trimmed
from hub.replay.audit.report import MOST, PATIENCE, Report
from schemas.envelope import Event, derived_id, format_time
from schemas.topics import COMMANDS, EVENTS


@dataclass
class _Log:
    """What `hub.events` holds, as far as the audit asks."""

    ids: dict[str, int] = field(default_factory=dict)
    """Event id → how often it lies there."""
    sequences: dict[int, Runs] = field(default_factory=lambda: defaultdict(Runs))
    settled: dict[int, Runs] = field(default_factory=lambda: defaultdict(Runs))
    """Sequences that were missing and were dealt with: published again, or given up with a reason."""
    ignored: int = 0
    unreadable: int = 0
    records: int = 0


Given = Callable[[], Mapping[int, int]]
"""Partition → the last sequence that the ledger has given by the time of the call."""


def audit(
    log: EventLog, conn: Connection, outbox_id: str, now: datetime, given: Given, boards: Connection | None = None
) -> Report:
    """Compare the log, the processor's state, the shared view, the ledger and the boards.

    `conn` and `boards` must each be one consistent look, taken before the log is read.

    `given` is asked after that, and must look anew: the log may hold what was sequenced since the first look.
    """
    report, shown = Report(), BoardAudit.of(boards)
    ledger, gone = _ledger(conn), Trimmed.of(conn)
    held = _read_log(log, outbox_id)
    late = format_time(now - PATIENCE)
    _intake(report, ledger, gone, held, late)
    _sequences(report, given(), held)
    overdue, known = (now - PATIENCE).timestamp(), LedgerEvents(ledger, gone)
    told = CaseAudit(report, log, _discarded(conn), shown, overdue, _foreign(conn, known, outbox_id)).look()
    views.compare(report, log, told, overdue)
    shown.compare(report)
    _commands(report, log, conn, late, known)
    _parked(report, conn, told, overdue)
    return report


def _ledger(conn: Connection) -> dict[str, tuple[str | None, str]]:
    """Event id → when it was published and when it was recorded, of those with a row."""
    found = select(outbox.c.event_id, outbox.c.published_at, outbox.c.recorded_at)
    return {row.event_id: (row.published_at, row.recorded_at) for row in conn.execute(found)}


def _read_log(log: EventLog, outbox_id: str) -> _Log:
    held = _Log()
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for record in batch:
            held.records += 1
            try:
                event = orjson.loads(record.value or b"")
                held.ids[event["id"]] = held.ids.get(event["id"], 0) + 1
            except (orjson.JSONDecodeError, KeyError, TypeError):
                held.unreadable += 1
                continue
            held.ignored += event.get("type") == "hub.delivery.ignored"
            news = told_repaired(record)
            if news is not None and news.get("outbox") == outbox_id and _whole(news.get("last"), news.get("found")):
                held.settled[record.partition].add(news["last"] + 1, news["found"] - 1)
            mark = numbered(record.value)
            if mark is not None and mark[0] == outbox_id:
                held.sequences[record.partition].add(mark[1])
    return held


def _whole(*values: object) -> bool:
    return all(isinstance(value, int) for value in values)


def _intake(report: Report, ledger: dict[str, tuple[str | None, str]], gone: Trimmed, held: _Log, late: str) -> None:
    """Every accepted event is in the log, once by its id however often it was written."""
    gone.see(held.ids)
    waiting = {id_ for id_, (published, _) in ledger.items() if published is None}
    report.counts |= {
        "accepted": len(ledger) + len(gone),
        "trimmed": len(gone),
        "on_their_way": len(waiting),
        "in_the_log": len(held.ids),
        "records": held.records,
        "repeats": sum(times - 1 for times in held.ids.values()),
        "ignored": held.ignored,
        "unreadable": held.unreadable,
    }
    report.find(
        "published, but not in the log",
        [id_ for id_ in ledger if id_ not in waiting and id_ not in held.ids],
        "hub.events",
    )
    report.find("published and trimmed, but not in the log", gone.unseen(), "hub.events")
    slow = [id_ for id_ in waiting if ledger[id_][1] < late and id_ not in held.ids]
    report.find("not in the log after too long", slow, "ledger: outbox")


def _foreign(conn: Connection, known: Container[str], outbox_id: str) -> IsForeign:
    """Tells events that no outbox of this ledger wrote; one with a number that was given since the look may be known by now."""
    ends = sequence_ends(conn)

    def is_foreign(partition: int, event: Event) -> bool:
        if event.outbox is None or event.sequence is None:
            return True
        since = event.outbox == outbox_id and int(event.sequence) > ends.get(partition, 0)
        return not since and event.id not in known

    return is_foreign


def _sequences(report: Report, given: Mapping[int, int], held: _Log) -> None:
    """Every partition holds the sequences from 1 to the last that the ledger gave, without a gap, and none beyond."""
    beyond = [str(p) for p, numbers in sorted(held.sequences.items()) if numbers.largest > given.get(p, 0)]
    report.find("partitions with sequences that the ledger never gave", beyond, "hub.events")
    for partition, numbers in sorted(held.sequences.items()):
        last = min(numbers.largest, given.get(partition, 0))
        for start, end in zip(held.settled[partition].starts, held.settled[partition].ends, strict=True):
            numbers.add(start, end)
        gaps = list(numbers.missing(last))
        examples = (f"{n:012}" for start, end in gaps for n in range(start, end + 1))
        report.find(
            f"gaps in the sequence of partition {partition}",
            itertools.islice(examples, MOST),
            f"hub.events/{partition}",
            sum(end - start + 1 for start, end in gaps),
        )


def _discarded(conn: Connection) -> set[str]:
    """What the ledger says was given up."""
    gone = parked.c.state == "discarded"
    return set(conn.execute(select(parked.c.ref).where(gone, parked.c.kind == "event")).scalars())


def _parked(report: Report, conn: Connection, told: CrossPartitionFacts, late: float) -> None:
    """What the processor holds back is on the list of parked work, and the list shows nothing else."""
    if report.counts["commands_on_their_way"]:
        return  # news of parked work travel with the commands: the list is not up to date
    rows = {
        row.ref: row.state
        for row in conn.execute(select(parked.c.ref, parked.c.state, parked.c.kind))
        if _is_event(row)
    }
    hidden = [ref for ref, since in told.parked.items() if ref not in rows and since < late]
    report.find("parked events that no list shows", hidden, "ledger: parked")
    if not told.behind:
        gone = [ref for ref, state in rows.items() if state == "open" and ref not in told.parked]
        report.find("listed as parked, but held nowhere", gone, "ledger: parked")


def _is_event(row: AnyRow) -> bool:
    return row.kind == "event" and str(row.ref).startswith(("event/", f"record/{EVENTS.name}/"))


def _commands(report: Report, log: EventLog, conn: Connection, late: str, known: Container[str]) -> None:
    """Every command that was asked for is in the ledger, none is in doubt for too long, and each effect is told."""
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
    """Commands of the log that the executor has read and the ledger lacks, and how many it has yet to read."""
    read_to = positions.of_reader(conn, "executor", COMMANDS.name)
    aside = {row.ref for row in conn.execute(select(parked.c.ref).where(parked.c.kind == "command"))}
    lost, waiting = [], 0
    for batch in read_to_end(log, COMMANDS.name, log.starts(COMMANDS.name)):
        for record in batch:
            if record.offset >= read_to.get(record.partition, 0):
                waiting += 1
                continue
            id_ = _command_id(record.value or b"")
            # One that cannot be read is parked under its place, whatever id it may name.
            where = f"record/{record.topic}/{record.partition}/{record.offset}"
            if id_ and id_ not in known and not aside & {f"command/{id_}", where}:
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
    """Each command that is done has one event that tells of it."""
    report.counts["effects"] = len(done)
    untold = [id_ for id_ in done if derived_id("result", id_, "done") not in known]
    report.find("effects that no event tells of", untold, "ledger: outbox")
