"""Which rows of the outbox may go, and their going: in the order of sequences, and only what was read in the log as it is here.

The log is read from the partition's floor on. What lies there is compared with the rows, byte for byte; where a row is missing in
the log, or is another there, its partition is trimmed no further. Rows that the ledger itself reads again stay (`STAYS`).
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
from hub.log.sequences import numbered, own_bytes
from hub.runtime.failpoints import failpoint

STAYS = frozenset({HALTED, REPAIRED})
"""Types of which every row stays: a repair asks what was dealt with before."""
NEWEST_STAYS = "hub.connector."
"""Of facts about an instance the newest stays: it tells how the instance is."""
_COLUMNS = tuple(
    outbox.c[name] for name in ("id", "event_id", "type", "subject", "body", "sequence", "published_at", "partition")
)
_LOOK = f"SELECT {', '.join(column.name for column in _COLUMNS)} FROM outbox WHERE event_id IN ({{given}})"  # noqa: S608  # ours
_DELETE = "DELETE FROM outbox WHERE id IN ({given}) AND published_at IS NOT NULL"


class Seen(NamedTuple):
    """An event of this outbox as the log has it."""

    sequence: int
    offset: int
    event_id: str
    body: bytes


class Read(NamedTuple):
    """Where it was read: which log, from which offset on, and before which."""

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
class Chosen:
    """The rows that go, and the floor that follows."""

    before: Floor
    floor: Floor
    rows: Sequence[Row] = ()
    is_barred: bool = False
    """Whether what comes next may not go yet: it is being sent again, or `floor.stuck` says what the log lacks."""
    keys: Mapping[int, Key] = field(default_factory=dict)
    """What stays of each row, by its id: made before anything is locked."""


class MovedError(Exception):
    """What was looked at is not as it was: it is to be looked at again."""


def seen(records: Iterable[Record], outbox_id: str) -> list[Seen]:
    """Those of the records that this outbox has numbered."""
    told = ((record, numbered(record.value)) for record in records)
    return [
        Seen(own[1], record.offset, _text(record.value or b"", "id"), own_bytes(record.value or b""))
        for record, own in told
        if own is not None and own[0] == outbox_id
    ]


def choose(conn: Connection, floor: Floor, found: Sequence[Seen], read: Read) -> Chosen:
    """Look which rows go, of what was `found` in the log where it was `read`."""
    rows = _rows(conn, [each.event_id for each in found if each.sequence > floor.sequence])
    made = chosen(floor, found, read, rows, lambda first, last: _first(conn, floor.partition, first, last))
    return replace(made, keys={row.id: _key(row) for row in made.rows})


def chosen(
    floor: Floor,
    found: Sequence[Seen],
    read: Read,
    rows: Mapping[str, Row],
    first: Callable[[int, int], int | None],
) -> Chosen:
    """Decide. `first` gives the first sequence between two of which the outbox has a row."""
    gone, sequence, end = list[Row](), floor.sequence, read.first

    def so_far(next_offset: int, *, is_barred: bool, stuck: int | None = None) -> Chosen:
        now = replace(floor, sequence=sequence, next_offset=next_offset, log=read.log, stuck=stuck)
        return Chosen(floor, now, gone, is_barred)

    for each in found:
        row = rows.get(each.event_id)
        # What is not as a row has it was published again under another number, or comes from a foreign hand: it counts for nothing.
        if row is not None and row.sequence == each.sequence > sequence and row.body == each.body:
            lacking = first(sequence + 1, each.sequence - 1) if each.sequence > sequence + 1 else None
            if lacking is not None or row.published_at is None:
                return so_far(end, is_barred=True, stuck=lacking)
            gone.append(row)
            sequence = each.sequence
        end = each.offset + 1
    return so_far(read.end, is_barred=False)


def _rows(conn: Connection, event_ids: Sequence[str]) -> dict[str, Row]:
    if not event_ids:
        return {}
    found = with_rows(conn, _LOOK, (outbox.c.event_id,), [(event_id,) for event_id in event_ids])
    return {row.event_id: row for row in map(Row._make, found)}


def _first(conn: Connection, partition: int, first: int, last: int) -> int | None:
    """Reads the whole outbox; it is asked for numbers that were given up, or that the log lacks."""
    there = (outbox.c.partition == partition, outbox.c.sequence.between(first, last))
    found: int | None = conn.execute(select(func.min(outbox.c.sequence)).where(*there)).scalar_one_or_none()
    return found


def trim(conn: Connection, wanted: Chosen) -> Floor:
    """Have the rows go and leave their keys; the floor then. Raises MovedError when they are not as they were looked at."""
    floor = trimmed.floor_of(conn, wanted.before.partition)
    if floor != wanted.before:
        raise MovedError
    rows = _going(conn, wanted.rows)
    keys = sorted(wanted.keys.get(row.id) or _key(row) for row in rows)
    new = insert_all(conn, trimmed.trimmed, ("id_hash", "content", "people"), keys, "id_hash")
    failpoint("ledger.trimming")
    if rows and with_rows(conn, _DELETE, (outbox.c.id,), [(row.id,) for row in rows]).rowcount < len(rows):
        raise MovedError
    after = replace(wanted.floor, events=floor.events + new)
    trimmed.move(conn, after)
    return after


def _going(conn: Connection, rows: Sequence[Row]) -> list[Row]:
    """Those that go, and facts about an instance that stayed before and are not its newest any more."""
    going = {row.id: row for row in rows if row.type not in STAYS and not row.type.startswith(NEWEST_STAYS)}
    for row in rows:
        if row.type.startswith(NEWEST_STAYS):
            about = select(*_COLUMNS).where(outbox.c.subject == row.subject).order_by(outbox.c.id)
            older = [Row(*each) for each in conn.execute(about)][:-1]
            going |= {each.id: each for each in older if each.id <= row.id and each.published_at is not None}
    return list(going.values())


Key = tuple[bytes, bytes | None, bytes | None]


def _key(row: Row) -> Key:
    """What stays of a row."""
    told = orjson.loads(row.body)
    if not conflicts.is_from_outside(told["source"]):
        return trimmed.id_hash(row.event_id), None, None
    return trimmed.id_hash(row.event_id), *conflicts.summary(told.get("data") or {})


def _text(raw: bytes, name: str) -> str:
    """A text of a JSON object; empty where there is none."""
    try:
        told = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ""
    return str(told.get(name, "")) if isinstance(told, dict) else ""
