"""The transactional outbox: every event is committed here first, and the relay publishes it to Kafka in sequence order.

States of a row: *held* (no case yet), *waiting* (no sequence), *sequenced* (perhaps sent), *published* (acknowledged by the log).
Later it is *trimmed* (`hub.ledger.trimming`): the log has the event, and the ledger keeps only the key that detects a duplicate.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Result,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from hub.ledger import trimmed
from hub.ledger.database import AnyRow, Serial, bound, execute_each, metadata, update_all, upsert, with_rows
from hub.log.partitioner import partition_of
from schemas.envelope import Event, instance_of

outbox = Table(
    "outbox",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("instance", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("case_id", Text),
    Column("body", LargeBinary, nullable=False),
    Column("recorded_at", Text, nullable=False),
    Column("held_until", Text),
    Column("partition", Integer),
    Column("sequence", BigInteger),
    Column("published_at", Text),
    sqlite_autoincrement=True,
)
_unpublished = outbox.c.published_at.is_(None)
Index("outbox_unpublished", outbox.c.id, sqlite_where=_unpublished, postgresql_where=_unpublished)
Index(
    "outbox_held",
    outbox.c.subject,
    sqlite_where=outbox.c.case_id.is_(None),
    postgresql_where=outbox.c.case_id.is_(None),
)
Index("outbox_case", outbox.c.case_id)
Index("outbox_subject", outbox.c.subject)

sequences = Table(
    "sequences",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("last", BigInteger, nullable=False),
)


_LASTS = select(sequences.c.partition, sequences.c.last)
_TAKEN = (outbox.c.id, outbox.c.case_id, outbox.c.body, outbox.c.partition, outbox.c.sequence)
# Written so that no index on cases applies: a database without statistics would scan the whole history by that index.
_ready = and_(_unpublished, func.coalesce(outbox.c.case_id, "") != "")
_BEFORE = (
    select(*_TAKEN)
    .where(_ready, outbox.c.sequence.is_not(None))
    .order_by(outbox.c.sequence, outbox.c.partition)
    .limit(bound("most"))
)
_UNPUBLISHED = select(outbox.c.partition, outbox.c.sequence).where(_unpublished, outbox.c.sequence.is_not(None))
_FRESH = select(*_TAKEN).where(_ready, outbox.c.sequence.is_(None)).order_by(outbox.c.id).limit(bound("most"))
_HELD = (
    select(outbox.c.id, outbox.c.instance, outbox.c.subject, outbox.c.held_until, outbox.c.body)
    .where(outbox.c.case_id.is_(None))
    .order_by(outbox.c.id)
)
_TOTAL = select(func.count()).select_from(outbox)
_WAITING = select(outbox.c.id).where(_ready).limit(1).offset(bound("beyond"))


@dataclass(frozen=True)
class SequencedRow:
    """A row with its partition and sequence, ready to be sent to the log."""

    id: int
    case: str
    body: bytes
    partition: int
    sequence: int


_GIVEN = ("event_id", "instance", "type", "subject", "case_id", "body", "recorded_at")
# The key lookup is a correlated subquery, so that no query plan can change the order of the rows, which is the relay's order.
_INSERT_NEW = """
    INSERT INTO outbox ({columns}) WITH given (id_hash, {columns}) AS ({{given}}) SELECT {columns} FROM given
    WHERE (SELECT trimmed.id_hash FROM trimmed WHERE trimmed.id_hash = given.id_hash) IS NULL
    ON CONFLICT (event_id) DO NOTHING
"""


def record(conn: Connection, events: Iterable[Event], instance: str) -> int:
    """Insert events, each once by its id; returns how many were new. They are durable when the transaction commits."""
    return record_all(conn, [(event, instance) for event in events])


def record_all(conn: Connection, events: Sequence[tuple[Event, str]]) -> int:
    """As `record`, each event with the instance that emitted it."""
    return _insert_new(conn, _GIVEN, [_row(event, instance, event.case) for event, instance in events])


def hold(conn: Connection, event: Event, instance: str, until: str) -> int:
    """Insert an event whose case is not known yet; it is not relayed before `release`. Returns 1 if it was new."""
    return _insert_new(conn, (*_GIVEN, "held_until"), [(*_row(event, instance, None), until)])


def _insert_new(conn: Connection, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows in order, except those whose event has a row or is trimmed; returns how many were inserted."""
    if not rows:
        return 0
    statement, of = _insert_of(columns)
    return with_rows(conn, statement, of, [(trimmed.id_hash(row[0]), *row) for row in rows]).rowcount


@functools.cache
def _insert_of(columns: tuple[str, ...]) -> tuple[str, tuple[Column[Any], ...]]:
    of = (trimmed.trimmed.c.id_hash, *(outbox.c[name] for name in columns))
    return _INSERT_NEW.format(columns=", ".join(columns)), of


def _row(event: Event, instance: str, case: str | None) -> tuple[Any, ...]:
    return (event.id, instance, event.type, event.subject, case, event.to_json(), event.recordedtime)


def holds(conn: Connection, subject: str) -> bool:
    """Whether an earlier event of this subject is held; later ones then wait behind it."""
    found = select(outbox.c.id).where(outbox.c.case_id.is_(None), outbox.c.subject == subject).limit(1)
    return conn.execute(found).first() is not None


def held(conn: Connection) -> Sequence[AnyRow]:
    """Held rows, oldest first: id, instance, subject, held_until, body."""
    return conn.execute(_HELD).all()


def release(conn: Connection, row: int, case: str) -> None:
    """Assign a held row its case. It moves to the end of the outbox, behind the event of the effect that it waited for."""
    held_row = conn.execute(select(outbox).where(outbox.c.id == row)).one()
    event = Event.from_json(held_row.body).model_copy(update={"partitionkey": case, "correlationid": case})
    conn.execute(delete(outbox).where(outbox.c.id == row))
    record(conn, [event], held_row.instance)


def waiting(conn: Connection, beyond: int = 0) -> bool:
    """Whether more than `beyond` rows wait to be relayed."""
    return conn.execute(_WAITING, {"beyond": beyond}).first() is not None


def take(conn: Connection, limit: int, partitions: int) -> list[SequencedRow]:
    """The unpublished rows in sending order: first those sequenced earlier and not acknowledged, then new ones, sequenced now.

    Send them only after this transaction has committed: an assigned sequence is never reused.
    """
    # A late commit has a smaller id than rows already sequenced, so "id above the last" would skip it.
    before = conn.execute(_BEFORE, {"most": limit}).all()
    # Behind all earlier ones: a new sequence between them would look like a gap to a reader.
    fresh = conn.execute(_FRESH, {"most": limit}).all() if len(before) < limit else []
    again = [SequencedRow(row.id, row.case_id, row.body, row.partition, row.sequence) for row in before]
    return again + _sequenced(conn, fresh, partitions)


def _sequenced(conn: Connection, rows: Sequence[AnyRow], partitions: int) -> list[SequencedRow]:
    if not rows:
        return []
    last = sequence_ends(conn)
    known = set(last)
    taken = []
    for row in rows:
        partition = partition_of(row.case_id.encode(), partitions)
        last[partition] = last.get(partition, 0) + 1
        taken.append(SequencedRow(row.id, row.case_id, row.body, partition, last[partition]))
    update_all(conn, outbox, ("id", "partition", "sequence"), [(w.id, w.partition, w.sequence) for w in taken])
    used = {w.partition for w in taken}
    update_all(conn, sequences, ("partition", "last"), [(p, last[p]) for p in used & known])
    # Fails, as it must, when another relay has just inserted the partition's counter.
    execute_each(conn, insert(sequences), [{"partition": p, "last": last[p]} for p in used - known])
    return taken


def mark_published(conn: Connection, rows: Sequence[int], at: str) -> None:
    """Mark rows as published: the log has acknowledged them."""
    update_all(conn, outbox, ("id", "published_at"), [(row, at) for row in rows])


def insert_from_log(conn: Connection, rows: Sequence[Mapping[str, Any]], at: str) -> None:
    """Insert events read from the log, or replace them; each row includes `partition` and `sequence`. All count as published."""
    trimmed.forget(conn, [(row["partition"], row["event_id"]) for row in rows])
    upsert(conn, outbox, [{**row, "held_until": None, "published_at": at} for row in rows], "event_id")
    lasts: dict[int, int] = {}
    for row in rows:
        lasts[row["partition"]] = max(row["sequence"], lasts.get(row["partition"], 0))
    known = sequence_ends(conn)
    ahead = [{"partition": p, "last": last} for p, last in sorted(lasts.items()) if last > known.get(p, 0)]
    upsert(conn, sequences, ahead, "partition")


def rows_in_range(conn: Connection, partition: int, first: int, last: int) -> Sequence[AnyRow]:
    """The rows with sequences from `first` to `last`, in sequence order: id, sequence, type, subject, case_id."""
    columns = (outbox.c.id, outbox.c.sequence, outbox.c.type, outbox.c.subject, outbox.c.case_id)
    given = select(*columns).where(outbox.c.partition == partition, outbox.c.sequence.between(first, last))
    return conn.execute(given.order_by(outbox.c.sequence)).all()


def resequence(conn: Connection, rows: Sequence[int]) -> None:
    """Have these rows relayed again under new sequences, because readers have passed the old ones.

    They get new ids, so that a relay that is sending them under the old sequences does not mark them as published.
    """
    for row in rows:
        stored = conn.execute(select(outbox).where(outbox.c.id == row)).one()
        conn.execute(delete(outbox).where(outbox.c.id == row))
        assigned = {"id", "partition", "sequence", "published_at"}
        values = {name: value for name, value in stored._mapping.items() if name not in assigned}
        conn.execute(insert(outbox).values(values))


def restore_trimmed(conn: Connection, events: Sequence[tuple[int, Event]]) -> int:
    """Have trimmed events (partition and event of each) relayed again under new sequences; returns how many."""
    trimmed.forget(conn, [(partition, event.id) for partition, event in events])
    return record_all(conn, [(event, instance_of(event.source)) for _, event in events])


def resend(conn: Connection, partition: int, above: int, to: int) -> int:
    """Have a partition's published rows with sequences in (`above`, `to`] sent again unchanged; returns how many."""
    lost = (outbox.c.partition == partition, outbox.c.sequence > above, outbox.c.sequence <= to)
    statement = update(outbox).where(*lost, outbox.c.published_at.is_not(None)).values(published_at=None)
    return conn.execute(statement).rowcount


def sequence_ends(conn: Connection) -> dict[int, int]:
    """Partition → the last assigned sequence."""
    return {key: value for key, value in conn.execute(_LASTS)}


def published_ends(conn: Connection) -> dict[int, int]:
    """Partition → the last sequence up to which the log has acknowledged every row."""
    open_ = {(partition, sequence) for partition, sequence in conn.execute(_UNPUBLISHED)}
    firsts: dict[int, int] = {}
    for partition, sequence in open_:
        firsts[partition] = min(sequence, firsts.get(partition, sequence))
    return {partition: firsts.get(partition, last + 1) - 1 for partition, last in sequence_ends(conn).items()}


def in_sequence(conn: Connection) -> Result[Any]:
    """id, partition and sequence of every sequenced row, ordered by partition and sequence. The caller closes the result."""
    columns = (outbox.c.id, outbox.c.partition, outbox.c.sequence)
    given = select(*columns).where(outbox.c.sequence.is_not(None)).order_by(outbox.c.partition, outbox.c.sequence)
    return conn.execution_options(yield_per=5000).execute(given)


def bodies(conn: Connection, rows: Sequence[int]) -> dict[int, tuple[str, bytes]]:
    """Row → its case and its body."""
    found = select(outbox.c.id, outbox.c.case_id, outbox.c.body).where(outbox.c.id.in_(rows))
    return {row.id: (row.case_id, row.body) for row in conn.execute(found)}


def find(conn: Connection, event_id: str) -> AnyRow | None:
    """The row of an event; None for an unknown event and for a trimmed one."""
    return conn.execute(select(outbox).where(outbox.c.event_id == event_id)).first()


def is_known(conn: Connection, event_id: str) -> bool:
    """Whether the event was recorded, also when its row is trimmed."""
    return find(conn, event_id) is not None or trimmed.is_trimmed(conn, event_id)


def of_case(conn: Connection, case: str) -> Sequence[AnyRow]:
    """The rows of a case, in insertion order."""
    return conn.execute(select(outbox).where(outbox.c.case_id == case).order_by(outbox.c.id)).all()


def of_subject(conn: Connection, subject: str) -> Sequence[AnyRow]:
    """The rows about one object, in insertion order."""
    return conn.execute(select(outbox).where(outbox.c.subject == subject).order_by(outbox.c.id)).all()


def count(conn: Connection) -> int:
    """The number of rows."""
    return conn.execute(_TOTAL).scalar_one()


def counts(conn: Connection) -> dict[str, int]:
    """The number of events accepted (including trimmed ones), held, and unpublished."""
    return {
        "accepted": count(conn) + trimmed.count(conn),
        "held": conn.execute(_TOTAL.where(outbox.c.case_id.is_(None))).scalar_one(),
        "unpublished": conn.execute(_TOTAL.where(_unpublished)).scalar_one(),
    }
