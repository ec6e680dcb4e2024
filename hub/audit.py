"""Proof, from the log and the ledger alone, that nothing was lost and nothing is in doubt.

The audit reads what lies there and compares; it trusts no counter that a program kept. It holds while the hub runs: what is
still on its way is counted as such, and is a finding only when it has been on its way for too long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, select

from hub.event_log import EventLog, read_to_end
from hub.ledger import positions
from hub.ledger.commands import commands
from hub.ledger.outbox import outbox
from hub.ledger.parked import parked
from hub.sequences import told_repaired
from hub.worker.state import PLACE, offset_of
from schemas.event import derived_id, is_reference, stamp
from schemas.topics import COMMANDS, EVENTS, STATE

PATIENCE = timedelta(seconds=120)
"""How long anything may be on its way: then a doubtful call must have been looked up, an event relayed and folded."""
MOST = 20
"""Examples named for one finding."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as promised."""

    what: str
    count: int
    examples: tuple[str, ...] = ()


@dataclass
class Report:
    """The balance, and what is wrong with it."""

    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every promise holds."""
        return not self.findings

    def find(self, what: str, examples: list[str]) -> None:
        """Note a finding, if there is one."""
        if examples:
            self.findings.append(Finding(what, len(examples), tuple(sorted(examples)[:MOST])))

    def as_value(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ok": self.ok, "counts": self.counts, "findings": [vars(finding) for finding in self.findings]}


@dataclass
class _Log:
    """What `hub.events` holds, as far as the audit asks."""

    ids: dict[str, int] = field(default_factory=dict)
    """Event id → how often it lies there."""
    sequences: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    settled: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Sequences that were missing and were dealt with: published again, or given up with a reason."""
    ends: dict[bytes, tuple[int, int, float]] = field(default_factory=dict)
    """Key → partition, offset and time of its last record."""
    ignored: int = 0
    unreadable: int = 0
    records: int = 0


Given = Callable[[], Mapping[int, int]]
"""Partition → the last sequence that the ledger has given by the time of the call."""


def audit(log: EventLog, conn: Connection, outbox_id: str, now: datetime, given: Given) -> Report:
    """Compare the log, the processor's state and the ledger. `conn` must be one consistent look, taken before the log is read.

    `given` is asked after that, and must look anew: the log may hold what was sequenced since the first look.
    """
    report = Report()
    ledger = _ledger(conn)
    held = _read_log(log, outbox_id)
    late = stamp(now - PATIENCE)
    _intake(report, ledger, held, late)
    _sequences(report, given(), held)
    _processor(report, log, held, (now - PATIENCE).timestamp())
    _commands(report, log, conn, late)
    return report


def _ledger(conn: Connection) -> dict[str, tuple[str | None, str]]:
    """Event id → when it was published and when it was recorded."""
    found = select(outbox.c.event_id, outbox.c.published_at, outbox.c.recorded_at)
    return {row.event_id: (row.published_at, row.recorded_at) for row in conn.execute(found)}


def _read_log(log: EventLog, outbox_id: str) -> _Log:
    held = _Log()
    for batch in read_to_end(log, EVENTS.name, log.starts(EVENTS.name)):
        for record in batch:
            held.records += 1
            if record.key is not None and _is_case(record.key):
                held.ends[record.key] = (record.partition, record.offset, record.time)
            try:
                event = orjson.loads(record.value or b"")
                held.ids[event["id"]] = held.ids.get(event["id"], 0) + 1
            except (orjson.JSONDecodeError, KeyError, TypeError):
                held.unreadable += 1
                continue
            held.ignored += event.get("type") == "hub.delivery.ignored"
            news = told_repaired(record)
            if news is not None and news.get("outbox") == outbox_id:
                held.settled[record.partition] |= set(range(news["last"] + 1, news["found"]))
            if event.get("outbox") == outbox_id and str(event.get("sequence", "")).isdigit():
                held.sequences[record.partition].add(int(event["sequence"]))
    return held


def _is_case(key: bytes) -> bool:
    """What lies under another key belongs to nobody: it is parked by itself, and the processor keeps nothing of it."""
    return is_reference(key.decode(errors="replace"))


def _intake(report: Report, ledger: dict[str, tuple[str | None, str]], held: _Log, late: str) -> None:
    """Every accepted event is in the log, once by its id however often it was written."""
    waiting = {id_ for id_, (published, _) in ledger.items() if published is None}
    report.counts |= {
        "accepted": len(ledger),
        "on_their_way": len(waiting),
        "in_the_log": len(held.ids),
        "records": held.records,
        "repeats": sum(times - 1 for times in held.ids.values()),
        "ignored": held.ignored,
        "unreadable": held.unreadable,
    }
    report.find("published, but not in the log", [id_ for id_ in ledger if id_ not in waiting and id_ not in held.ids])
    report.find(
        "not in the log after too long", [id_ for id_ in waiting if ledger[id_][1] < late and id_ not in held.ids]
    )


def _sequences(report: Report, given: Mapping[int, int], held: _Log) -> None:
    """Every partition holds the sequences from 1 on without a gap."""
    for partition, numbers in sorted(held.sequences.items()):
        missing = sorted(set(range(1, max(numbers) + 1)) - numbers - held.settled[partition])
        report.find(f"gaps in the sequence of partition {partition}", [f"{n:012}" for n in missing])
    beyond = [str(p) for p, numbers in sorted(held.sequences.items()) if max(numbers) > given.get(p, 0)]
    report.find("partitions with sequences that the ledger never gave", beyond)


def _processor(report: Report, log: EventLog, held: _Log, late: float) -> None:
    """Every case's state reflects the case's last event."""
    reflects: dict[bytes, int] = {}
    holding: dict[bytes, int] = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in (record for record in batch if _is_case(record.key or b"")):
            if record.key is None or record.key == PLACE or record.value is None:
                continue
            offset = offset_of(record.value)
            if offset >= reflects.get(record.key, -1):
                reflects[record.key] = offset
                holding[record.key] = len(orjson.loads(record.value)["case"]["held"])
    behind = [key for key, (_, offset, _) in held.ends.items() if reflects.get(key, -1) < offset]
    stuck = [key.decode(errors="replace") for key in behind if held.ends[key][2] < late]
    report.counts |= {
        "cases": len(held.ends),
        "cases_behind": len(behind),
        "events_parked": sum(holding.values()),
        "events_applied": len(held.ids) - sum(holding.values()),
    }
    report.find("cases whose last event the processor has not folded", stuck)


def _commands(report: Report, log: EventLog, conn: Connection, late: str) -> None:
    """Every command that was asked for is in the ledger, none is in doubt for too long, and each effect is told."""
    rows = {row.id: row for row in conn.execute(select(commands))}
    lost, waiting = _missing(log, conn, set(rows))
    report.counts |= {"commands": len(rows), "commands_on_their_way": waiting}
    for row in rows.values():
        state = f"commands_{row.state.lower()}"
        report.counts[state] = report.counts.get(state, 0) + 1
    doubtful = [row.id for row in rows.values() if row.state in ("SENDING", "UNKNOWN") and row.updated_at < late]
    report.find("calls in doubt after too long", doubtful)
    report.find("commands that were read and are not in the ledger", lost)
    opened = {row.ref for row in conn.execute(select(parked.c.ref).where(parked.c.state == "open"))}
    silent = [row.id for row in rows.values() if row.state == "PARKED" and f"command/{row.id}" not in opened]
    report.find("parked commands that no list shows", silent)
    report.counts["parked"] = len(opened)
    _effects(report, conn, [row.id for row in rows.values() if row.state == "DONE"])


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


def _effects(report: Report, conn: Connection, done: list[str]) -> None:
    """Each command that is done has one event that tells of it."""
    known = {row.event_id for row in conn.execute(select(outbox.c.event_id))}
    report.counts["effects"] = len(done)
    report.find(
        "effects that no event tells of", [id_ for id_ in done if derived_id("result", id_, "done") not in known]
    )
