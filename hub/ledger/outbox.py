"""The one door into the log: events are committed here first, and relayed to Kafka in the order of their sequence.

A row passes through: *held* (no case yet), *waiting* (no sequence), *sequenced* (sent, perhaps), *published* (acknowledged). Long
after, it is *trimmed* (`hub.ledger.trimming`): the log has it, and here only the key stays that recognises a repeat.
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
from hub.ledger.database import AnyRow, Serial, bound, each, metadata, put, update_all, with_rows
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
# Said so that no index on cases is of use: a database without statistics would read the whole history by it.
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
class Waiting:
    """A row on its way to the log."""

    id: int
    case: str
    body: bytes
    partition: int
    sequence: int


_GIVEN = ("event_id", "instance", "type", "subject", "case_id", "body", "recorded_at")
# The look for a key is a subquery that is made for each row, so that no plan may change the rows' order, which is the relay's.
_INSERT_NEW = """
    INSERT INTO outbox ({columns}) WITH given (id_hash, {columns}) AS ({{given}}) SELECT {columns} FROM given
    WHERE (SELECT trimmed.id_hash FROM trimmed WHERE trimmed.id_hash = given.id_hash) IS NULL
    ON CONFLICT (event_id) DO NOTHING
"""


def record(conn: Connection, events: Iterable[Event], instance: str) -> int:
    """Take events in, each once by its id; how many were new. They are durable when the transaction commits."""
    return record_all(conn, [(event, instance) for event in events])


def record_all(conn: Connection, events: Sequence[tuple[Event, str]]) -> int:
    """As `record`, each event with the instance that told it."""
    return _insert_new(conn, _GIVEN, [_row(event, instance, event.case) for event, instance in events])


def hold(conn: Connection, event: Event, instance: str, until: str) -> int:
    """Take in an event whose case is not known yet: it stays out of the log until `release`; 1 if it was new."""
    return _insert_new(conn, (*_GIVEN, "held_until"), [(*_row(event, instance, None), until)])


def _insert_new(conn: Connection, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows, in order, except those whose event has a row or has had one; how many were inserted."""
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
    """Whether an earlier event of this subject is held: later ones then wait behind it."""
    found = select(outbox.c.id).where(outbox.c.case_id.is_(None), outbox.c.subject == subject).limit(1)
    return conn.execute(found).first() is not None


def held(conn: Connection) -> Sequence[AnyRow]:
    """Held rows, oldest first: id, instance, subject, held_until, body."""
    return conn.execute(_HELD).all()


def release(conn: Connection, row: int, case: str) -> None:
    """Give a held row its case. It takes a new place at the end: behind the record of the effect that it waited for."""
    kept = conn.execute(select(outbox).where(outbox.c.id == row)).one()
    event = Event.from_json(kept.body).model_copy(update={"partitionkey": case, "correlationid": case})
    conn.execute(delete(outbox).where(outbox.c.id == row))
    record(conn, [event], kept.instance)


def waiting(conn: Connection, beyond: int = 0) -> bool:
    """Whether there is more to relay than so many rows."""
    return conn.execute(_WAITING, {"beyond": beyond}).first() is not None


def take(conn: Connection, limit: int, partitions: int) -> list[Waiting]:
    """The unpublished rows in the order to send them: those sequenced before a crash again, then new ones, sequenced now.

    To be sent only after this transaction has committed: a sequence given is a sequence used.
    """
    # A commit that came late has a smaller id than rows already sequenced, so "id above the last" would pass it over.
    before = conn.execute(_BEFORE, {"most": limit}).all()
    # Behind all of those before: a reader would take a new one in their midst for a gap.
    fresh = conn.execute(_FRESH, {"most": limit}).all() if len(before) < limit else []
    again = [Waiting(row.id, row.case_id, row.body, row.partition, row.sequence) for row in before]
    return again + _sequenced(conn, fresh, partitions)


def _sequenced(conn: Connection, rows: Sequence[AnyRow], partitions: int) -> list[Waiting]:
    if not rows:
        return []
    last = sequence_ends(conn)
    known = set(last)
    taken = []
    for row in rows:
        partition = partition_of(row.case_id.encode(), partitions)
        last[partition] = last.get(partition, 0) + 1
        taken.append(Waiting(row.id, row.case_id, row.body, partition, last[partition]))
    update_all(conn, outbox, ("id", "partition", "sequence"), [(w.id, w.partition, w.sequence) for w in taken])
    used = {w.partition for w in taken}
    update_all(conn, sequences, ("partition", "last"), [(p, last[p]) for p in used & known])
    # Fails when another relay has just begun to count there, as it must.
    each(conn, insert(sequences), [{"partition": p, "last": last[p]} for p in used - known])
    return taken


def publish(conn: Connection, rows: Sequence[int], at: str) -> None:
    """Note that the log has acknowledged these rows."""
    update_all(conn, outbox, ("id", "published_at"), [(row, at) for row in rows])


def remember(conn: Connection, rows: Sequence[Mapping[str, Any]], at: str) -> None:
    """Take in events as the log has them: `partition` and `sequence` are among what each row says. All count as published."""
    trimmed.forget(conn, [(row["partition"], row["event_id"]) for row in rows])
    put(conn, outbox, [{**row, "held_until": None, "published_at": at} for row in rows], "event_id")
    lasts: dict[int, int] = {}
    for row in rows:
        lasts[row["partition"]] = max(row["sequence"], lasts.get(row["partition"], 0))
    known = sequence_ends(conn)
    ahead = [{"partition": p, "last": last} for p, last in sorted(lasts.items()) if last > known.get(p, 0)]
    put(conn, sequences, ahead, "partition")


def numbered(conn: Connection, partition: int, first: int, last: int) -> Sequence[AnyRow]:
    """The rows that were given these sequences: id, sequence, type, subject, case_id; in that order."""
    columns = (outbox.c.id, outbox.c.sequence, outbox.c.type, outbox.c.subject, outbox.c.case_id)
    given = select(*columns).where(outbox.c.partition == partition, outbox.c.sequence.between(first, last))
    return conn.execute(given.order_by(outbox.c.sequence)).all()


def publish_again(conn: Connection, rows: Sequence[int]) -> None:
    """Have these rows relayed anew, under new sequences: readers have passed the old ones.

    They take new places, so that a relay which is just sending them under the old ones does not mark them as published.
    """
    for row in rows:
        kept = conn.execute(select(outbox).where(outbox.c.id == row)).one()
        conn.execute(delete(outbox).where(outbox.c.id == row))
        new = {"id": None, "partition": None, "sequence": None, "published_at": None}
        told = {name: value for name, value in kept._mapping.items() if name not in new}
        conn.execute(insert(outbox).values(told))


def bring_back(conn: Connection, events: Sequence[tuple[int, Event]]) -> int:
    """Have trimmed events relayed anew, under new sequences: the partition and the event of each; how many."""
    trimmed.forget(conn, [(partition, event.id) for partition, event in events])
    return record_all(conn, [(event, instance_of(event.source)) for _, event in events])


def send_again(conn: Connection, partition: int, above: int, to: int) -> int:
    """Have the published rows of a partition with these sequences sent once more, as they are; how many."""
    lost = (outbox.c.partition == partition, outbox.c.sequence > above, outbox.c.sequence <= to)
    statement = update(outbox).where(*lost, outbox.c.published_at.is_not(None)).values(published_at=None)
    return conn.execute(statement).rowcount


def sequence_ends(conn: Connection) -> dict[int, int]:
    """Partition → the last sequence that was given."""
    return {key: value for key, value in conn.execute(_LASTS)}


def published_ends(conn: Connection) -> dict[int, int]:
    """Partition → the last sequence that the log has acknowledged, and all before it."""
    open_ = {(partition, sequence) for partition, sequence in conn.execute(_UNPUBLISHED)}
    firsts: dict[int, int] = {}
    for partition, sequence in open_:
        firsts[partition] = min(sequence, firsts.get(partition, sequence))
    return {partition: firsts.get(partition, last + 1) - 1 for partition, last in sequence_ends(conn).items()}


def in_sequence(conn: Connection) -> Result[Any]:
    """id, partition and sequence of every row that was given one, partition by partition in the order of sequences.

    To be closed by who reads it.
    """
    columns = (outbox.c.id, outbox.c.partition, outbox.c.sequence)
    given = select(*columns).where(outbox.c.sequence.is_not(None)).order_by(outbox.c.partition, outbox.c.sequence)
    return conn.execution_options(yield_per=5000).execute(given)


def bodies(conn: Connection, rows: Sequence[int]) -> dict[int, tuple[str, bytes]]:
    """Row → its case and its body."""
    found = select(outbox.c.id, outbox.c.case_id, outbox.c.body).where(outbox.c.id.in_(rows))
    return {row.id: (row.case_id, row.body) for row in conn.execute(found)}


def find(conn: Connection, event_id: str) -> AnyRow | None:
    """The row of an event; one that is trimmed has none any more."""
    return conn.execute(select(outbox).where(outbox.c.event_id == event_id)).first()


def is_known(conn: Connection, event_id: str) -> bool:
    """Whether an event was taken in."""
    return find(conn, event_id) is not None or trimmed.is_trimmed(conn, event_id)


def of_case(conn: Connection, case: str) -> Sequence[AnyRow]:
    """The rows of a case, in the order they came."""
    return conn.execute(select(outbox).where(outbox.c.case_id == case).order_by(outbox.c.id)).all()


def of_subject(conn: Connection, subject: str) -> Sequence[AnyRow]:
    """The rows about one object, in the order they came."""
    return conn.execute(select(outbox).where(outbox.c.subject == subject).order_by(outbox.c.id)).all()


def count(conn: Connection) -> int:
    """How many there are."""
    return conn.execute(_TOTAL).scalar_one()


def counts(conn: Connection) -> dict[str, int]:
    """How many events were taken in: in all, those that are trimmed with them; held; and unpublished."""
    return {
        "accepted": count(conn) + trimmed.count(conn),
        "held": conn.execute(_TOTAL.where(outbox.c.case_id.is_(None))).scalar_one(),
        "unpublished": conn.execute(_TOTAL.where(_unpublished)).scalar_one(),
    }
