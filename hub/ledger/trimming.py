"""Trimming the outbox: deletes published rows in sequence order, once the same event was read back from the log.

The log is read from the partition's floor on and compared with the rows byte for byte. Where it lacks a row or has other bytes, the
partition is trimmed no further. Rows that the ledger itself reads later are retained (`RETAINED_TYPES`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, func, select

from hub.ledger import conflicts, trimmed
from hub.ledger.database import insert_all, with_rows
from hub.ledger.outbox import outbox
from hub.ledger.trimmed import Floor
from hub.log.event_log import Record
from hub.log.sequence_gaps import HALTED, REPAIRED
from hub.log.sequences import sequence_of, without_sequence
from hub.runtime.failpoints import failpoint

RETAINED_TYPES = frozenset({HALTED, REPAIRED})
"""Types whose rows are all retained: a repair reads which gaps were handled before."""
NEWEST_RETAINED_PREFIX = "hub.connector."
"""Of an instance's events with this type prefix the newest is retained: it holds the instance's state."""
_COLUMNS = tuple(
    outbox.c[name] for name in ("id", "event_id", "type", "subject", "body", "sequence", "published_at", "partition")
)
_SELECT = f"SELECT {', '.join(column.name for column in _COLUMNS)} FROM outbox WHERE event_id IN ({{given}})"  # noqa: S608  # ours
_DELETE = "DELETE FROM outbox WHERE id IN ({given}) AND published_at IS NOT NULL"


class LoggedEvent(NamedTuple):
    """An event of this outbox as it is in the log."""

    sequence: int
    offset: int
    event_id: str
    body: bytes


class LogRange(NamedTuple):
    """The range that was read: the log's name, the first offset, and the offset after the last."""

    log: str
    first: int
    end: int


class Row(NamedTuple):
    """A row of the outbox."""

    id: int
    event_id: str
    type: str
    subject: str
    body: bytes
    sequence: int | None
    published_at: str | None
    partition: int | None


@dataclass(frozen=True)
class TrimPlan:
    """The rows to delete, and the floor before and after."""

    before: Floor
    floor: Floor
    rows: Sequence[Row] = ()
    is_barred: bool = False
    """Whether the next row must not be deleted yet: it is being resent, or `floor.stuck` names the sequence that the log lacks."""
    keys: Mapping[int, Key] = field(default_factory=dict)
    """Row id → the key that remains of the row; computed before the write transaction begins."""


class MovedError(Exception):
    """The floor or the rows have changed since the plan was made; a new plan is needed."""


def logged_events(records: Iterable[Record], outbox_id: str) -> list[LoggedEvent]:
    """The records that carry a sequence of this outbox."""
    pairs = ((record, sequence_of(record.value)) for record in records)
    return [
        LoggedEvent(own[1], record.offset, _text(record.value or b"", "id"), without_sequence(record.value or b""))
        for record, own in pairs
        if own is not None and own[0] == outbox_id
    ]


def plan_trim(conn: Connection, floor: Floor, found: Sequence[LoggedEvent], read: LogRange) -> TrimPlan:
    """Read the rows of the events `found` in the log range `read`, and decide which to delete."""
    rows = _rows(conn, [each.event_id for each in found if each.sequence > floor.sequence])
    made = decide(floor, found, read, rows, lambda first, last: _first_row(conn, floor.partition, first, last))
    return replace(made, keys={row.id: _key(row) for row in made.rows})


def decide(
    floor: Floor,
    found: Sequence[LoggedEvent],
    read: LogRange,
    rows: Mapping[str, Row],
    first_row: Callable[[int, int], int | None],
) -> TrimPlan:
    """The pure decision. `first_row(first, last)` returns the first sequence in that range for which the outbox has a row."""
    deleted, sequence, end = list[Row](), floor.sequence, read.first

    def so_far(next_offset: int, *, is_barred: bool, stuck: int | None = None) -> TrimPlan:
        now = replace(floor, sequence=sequence, next_offset=next_offset, log=read.log, stuck=stuck)
        return TrimPlan(floor, now, deleted, is_barred)

    for each in found:
        row = rows.get(each.event_id)
        # A record that differs from the row was resequenced, or a foreign producer wrote it: it proves nothing and is skipped.
        if row is not None and row.sequence == each.sequence > sequence and row.body == each.body:
            lacking = first_row(sequence + 1, each.sequence - 1) if each.sequence > sequence + 1 else None
            if lacking is not None or row.published_at is None:
                return so_far(end, is_barred=True, stuck=lacking)
            deleted.append(row)
            sequence = each.sequence
        end = each.offset + 1
    return so_far(read.end, is_barred=False)


def _rows(conn: Connection, event_ids: Sequence[str]) -> dict[str, Row]:
    if not event_ids:
        return {}
    found = with_rows(conn, _SELECT, (outbox.c.event_id,), [(event_id,) for event_id in event_ids])
    return {row.event_id: row for row in map(Row._make, found)}


def _first_row(conn: Connection, partition: int, first: int, last: int) -> int | None:
    """The partition's first row with a sequence in the range. Scans the whole outbox; called only where the log skips sequences."""
    in_range = (outbox.c.partition == partition, outbox.c.sequence.between(first, last))
    found: int | None = conn.execute(select(func.min(outbox.c.sequence)).where(*in_range)).scalar_one_or_none()
    return found


def trim(conn: Connection, plan: TrimPlan) -> Floor:
    """Delete the planned rows, insert their keys, and return the new floor. Raises MovedError when the plan is out of date."""
    floor = trimmed.floor_of(conn, plan.before.partition)
    if floor != plan.before:
        raise MovedError
    rows = _rows_to_delete(conn, plan.rows)
    keys = sorted(plan.keys.get(row.id) or _key(row) for row in rows)
    new = insert_all(conn, trimmed.trimmed, ("id_hash", "content", "people"), keys, "id_hash")
    failpoint("ledger.trimming")
    if rows and with_rows(conn, _DELETE, (outbox.c.id,), [(row.id,) for row in rows]).rowcount < len(rows):
        raise MovedError
    after = replace(plan.floor, events=floor.events + new)
    trimmed.move(conn, after)
    return after


def _rows_to_delete(conn: Connection, rows: Sequence[Row]) -> list[Row]:
    """The rows to delete: those not retained, and retained instance events that are no longer their instance's newest."""
    deleted = {
        row.id: row
        for row in rows
        if row.type not in RETAINED_TYPES and not row.type.startswith(NEWEST_RETAINED_PREFIX)
    }
    for row in rows:
        if row.type.startswith(NEWEST_RETAINED_PREFIX):
            same_subject = select(*_COLUMNS).where(outbox.c.subject == row.subject).order_by(outbox.c.id)
            older = [Row(*each) for each in conn.execute(same_subject)][:-1]
            deleted |= {each.id: each for each in older if each.id <= row.id and each.published_at is not None}
    return list(deleted.values())


Key = tuple[bytes, bytes | None, bytes | None]


def _key(row: Row) -> Key:
    """The key that remains of a row: id hash, content digest and people digest."""
    event = orjson.loads(row.body)
    if not conflicts.is_from_outside(event["source"]):
        return trimmed.id_hash(row.event_id), None, None
    return trimmed.id_hash(row.event_id), *conflicts.summary(event.get("data") or {})


def _text(raw: bytes, name: str) -> str:
    """A string field of a JSON object; empty where there is none."""
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ""
    return str(fields.get(name, "")) if isinstance(fields, dict) else ""
