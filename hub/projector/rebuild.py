"""Building a board again from the log: to compare it with the one that is shown, or to put it in its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import orjson
from sqlalchemy import ColumnElement, Connection, MetaData, Table, insert, select

from hub.errors import RetryableError
from hub.kit.projection import AnyProjection, Index, Projection, Row
from hub.log.event_log import EventLog, Record
from hub.projector.adding import block_hashes
from hub.projector.buffer import Buffer
from hub.projector.folding import FoldPosition
from hub.projector.rows import all_rows
from hub.projector.runner import MOST, BoardLease, Runner
from hub.projector.store import BoardStore, forget, lock_schema, owners, read_owner, read_places, write_places
from schemas.topics import EVENTS

Progress = Callable[[int, int], None]
"""Told how many records are folded, of how many."""
MOST_ROWS = 50_000
"""Changed rows that are kept in memory before they are written."""
TRIES = 20
"""How often the swap runs after a board that moves on."""


@dataclass(frozen=True)
class Snapshot:
    """A board at one moment: where it stands in the log, and the hash of each row; of an index, of each block of rows."""

    places: Mapping[int, FoldPosition]
    hashes: Mapping[str, bytes]
    rows: int

    @property
    def digest(self) -> str:
        """One hash over all rows, the same in every store."""
        total = hashlib.sha256()
        for key in sorted(self.hashes):
            total.update(key.encode() + b"\0" + self.hashes[key])
        return total.hexdigest()


@dataclass(frozen=True)
class Comparison:
    """The board that is shown beside the fold of the log up to the same position. `live` None: there was none to compare."""

    board: str
    records: int
    rows: int
    built: str
    live: str | None
    differing: tuple[str, ...] = ()
    """Keys whose rows differ, that are missing or that should not be there; of an index, blocks with such rows. Sorted."""

    @property
    def equal(self) -> bool:
        """Whether the board equals its history."""
        return self.live == self.built


def row_hash(row: Row) -> bytes:
    """The hash of a row's canonical JSON."""
    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).digest()


def snapshot(conn: Connection, kept: AnyProjection) -> Snapshot:
    """Look at a board, or an index, in a transaction that sees one moment."""
    places = read_places(conn, kept.name)
    match kept:
        case Projection(table=table):
            hashes = {key: row_hash(row) for key, row in all_rows(conn, table)}
            return Snapshot(places, hashes, len(hashes))
        case Index(tables=tables):
            blocks = [block_hashes(conn, table) for table in tables]
            return Snapshot(places, {k: h for found, _ in blocks for k, h in found.items()}, sum(n for _, n in blocks))


def rebuild(
    log: EventLog,
    store: BoardStore,
    projection: AnyProjection,
    *,
    verify: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Fold the log into a shadow table up to the very position of the board, and compare; then, unless `verify`, swap.

    The board is shown and written as before until the swap, which is one transaction. May be broken off at any time: the shadow
    is made anew. Raises RetryableError when the board moved on faster than it could be followed, or another rebuild of it began.
    """
    shadow = _shadow(projection)
    _drop(store, shadow)
    runner = Runner(log, store, shadow)
    lease = runner.try_claim()
    if lease is None:
        raise RetryableError("HUB-E5103", board=projection.name)
    try:
        for _ in range(TRIES):
            comparison, live = _compare(runner, lease, store, projection, progress)
            if verify or _swap(store, projection, shadow, lease, live):
                return comparison
        raise RetryableError("HUB-E5103", board=projection.name)
    finally:
        _drop(store, shadow)


def _compare(
    runner: Runner, lease: BoardLease, store: BoardStore, projection: AnyProjection, progress: Progress | None
) -> tuple[Comparison, Snapshot | None]:
    live = _live(store, projection)
    if live is not None:
        runner.check_ahead(live.places)
    ends = _offsets(live.places) if live else runner.log.ends(EVENTS.name)
    _fold_to(runner, lease, ends, progress)
    with store.reading() as conn:
        built = snapshot(conn, runner.projection)
    differing = _differing(built.hashes, live.hashes) if live else ()
    records = sum(place.next_offset for place in lease.places.values())
    return (
        Comparison(
            board=projection.name,
            records=records,
            rows=built.rows,
            built=built.digest,
            live=live.digest if live else None,
            differing=differing,
        ),
        live,
    )


def _live(store: BoardStore, projection: AnyProjection) -> Snapshot | None:
    """The board that is shown; None when there is none of this version."""
    with store.reading() as conn:
        owner = read_owner(conn, projection.name)
        if owner is None or owner.version != projection.version:
            return None
        return snapshot(conn, projection)


def _fold_to(runner: Runner, lease: BoardLease, ends: Mapping[int, int], progress: Progress | None) -> None:
    """Fold up to these offsets exactly: a record past them waits."""
    missing = {p: end for p, end in ends.items() if lease.places[p].next_offset < end}
    if not missing:
        return
    total = left = sum(ends.values())
    is_new = not any(place.next_offset for place in lease.places.values())
    buffer = Buffer(runner.store, MOST_ROWS, is_new=is_new)
    runner = replace(runner, store=buffer)
    reader = runner.log.reader(EVENTS.name, {p: lease.places[p].next_offset for p in missing})
    try:
        while left > 0:
            batch = _before(reader.read(MOST, 1.0), ends)
            runner.fold(lease, batch)
            left = sum(max(0, end - lease.places[p].next_offset) for p, end in missing.items())
            if progress is not None:
                progress(total - left, total)
        buffer.flush()
    finally:
        reader.close()


def _before(records: Iterable[Record], ends: Mapping[int, int]) -> list[Record]:
    return [record for record in records if record.offset < ends[record.partition]]


def _differing(built: Mapping[str, bytes], live: Mapping[str, bytes]) -> tuple[str, ...]:
    return tuple(sorted(key for key in built.keys() | live.keys() if built.get(key) != live.get(key)))


def _swap(
    store: BoardStore, projection: AnyProjection, shadow: AnyProjection, lease: BoardLease, live: Snapshot | None
) -> bool:
    """Put the shadow in the board's place if the board still stands where it was compared."""
    with store.writing() as conn:
        lock_schema(conn)
        # Locked, so that a writer is either done, and seen below, or waits and then finds its epoch gone.
        owner = conn.execute(select(owners.c.epoch).where(_is(projection)).with_for_update()).scalar_one_or_none()
        if live is not None and _offsets(read_places(conn, projection.name)) != _offsets(live.places):
            return False
        built = read_owner(conn, shadow.name)
        forget(conn, projection.name)
        for table, made in zip(projection.tables, shadow.tables, strict=True):
            table.drop(conn, checkfirst=True)
            conn.exec_driver_sql(f'ALTER TABLE "{made.name}" RENAME TO "{table.name}"')
            for index in table.indexes:
                index.create(conn)
        write_places(conn, projection.name, lease.places)
        fresh = {"holder": "", "beat": 0, "fresh_at": "", "delay_ms": 0}
        counted = {"unreadable": built.unreadable if built else 0, "epoch": (owner or 0) + 1}
        conn.execute(insert(owners).values(projection=projection.name, version=projection.version, **fresh, **counted))
    return True


def _is(projection: AnyProjection) -> ColumnElement[bool]:
    return owners.c.projection == projection.name


def _shadow(projection: AnyProjection) -> AnyProjection:
    name, tables = f"{projection.name}__shadow", tuple(map(_shadow_of, projection.tables))
    match projection:
        case Projection():
            return replace(projection, name=name, table=tables[0])
        case Index():
            return replace(projection, name=name, tables=tables)


def _shadow_of(table: Table) -> Table:
    made = table.to_metadata(MetaData(), name=f"{table.name}__shadow")
    made.indexes.clear()  # their names are taken
    return made


def _drop(store: BoardStore, shadow: AnyProjection) -> None:
    with store.writing() as conn:
        lock_schema(conn)
        forget(conn, shadow.name)
        for table in shadow.tables:
            table.drop(conn, checkfirst=True)


def _offsets(places: Mapping[int, FoldPosition]) -> dict[int, int]:
    return {partition: place.next_offset for partition, place in places.items() if place.next_offset}
