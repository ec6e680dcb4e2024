"""Rebuilds a board from the log into a shadow table, to verify the live board or to replace it."""

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
from hub.projector.buffer import BufferedStore
from hub.projector.folding import FoldPosition
from hub.projector.rows import all_rows
from hub.projector.runner import MAX_BATCH, BoardLease, Runner
from hub.projector.store import BoardStore, forget, lock_schema, owners, read_owner, read_places, write_places
from schemas.topics import EVENTS

Progress = Callable[[int, int], None]
"""Called with the number of folded records and the total."""
MAX_BUFFERED_ROWS = 50_000
"""Changed rows held in memory before they are written."""
MAX_SWAP_ATTEMPTS = 20
"""Attempts to swap while the live board moves on between comparison and swap."""


@dataclass(frozen=True)
class Snapshot:
    """A board at one moment: its positions and the hash of each row (board) or of each block of rows (index)."""

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
    """The live board compared with the fold of the log up to the same position. `live` is None when there was no board."""

    board: str
    records: int
    rows: int
    built: str
    live: str | None
    differing: tuple[str, ...] = ()
    """Keys whose rows differ, are missing or are superfluous; of an index, blocks with such rows. Sorted."""

    @property
    def equal(self) -> bool:
        """Whether the live board equals the fold of the log."""
        return self.live == self.built


def row_hash(row: Row) -> bytes:
    """The hash of a row's canonical JSON."""
    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).digest()


def snapshot(conn: Connection, projection: AnyProjection) -> Snapshot:
    """Read a board or an index, in a transaction with a consistent snapshot."""
    places = read_places(conn, projection.name)
    match projection:
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

    The live board is read and written as before until the swap, which is one transaction. May be interrupted at any time: the next
    rebuild starts with an empty shadow. Raises RetryableError when the live board moved on faster than the rebuild could follow,
    or when another rebuild of it began.
    """
    shadow = _shadow(projection)
    _drop(store, shadow)
    runner = Runner(log, store, shadow)
    lease = runner.try_claim()
    if lease is None:
        raise RetryableError("HUB-E5103", board=projection.name)
    try:
        for _ in range(MAX_SWAP_ATTEMPTS):
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
    """The live board; None when there is none of this version."""
    with store.reading() as conn:
        owner = read_owner(conn, projection.name)
        if owner is None or owner.version != projection.version:
            return None
        return snapshot(conn, projection)


def _fold_to(runner: Runner, lease: BoardLease, ends: Mapping[int, int], progress: Progress | None) -> None:
    """Fold up to exactly these offsets: a record past them is not folded yet."""
    missing = {p: end for p, end in ends.items() if lease.places[p].next_offset < end}
    if not missing:
        return
    total = left = sum(ends.values())
    is_new = not any(place.next_offset for place in lease.places.values())
    buffer = BufferedStore(runner.store, MAX_BUFFERED_ROWS, is_new=is_new)
    runner = replace(runner, store=buffer)
    reader = runner.log.reader(EVENTS.name, {p: lease.places[p].next_offset for p in missing})
    try:
        while left > 0:
            batch = _before(reader.read(MAX_BATCH, 1.0), ends)
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
    """Replace the live board by the shadow if the live board's positions are still those of the comparison."""
    with store.writing() as conn:
        lock_schema(conn)
        # Row lock: a concurrent writer has committed, and is visible below, or waits and is then fenced by the new epoch.
        owner = conn.execute(select(owners.c.epoch).where(_is(projection)).with_for_update()).scalar_one_or_none()
        if live is not None and _offsets(read_places(conn, projection.name)) != _offsets(live.places):
            return False
        built = read_owner(conn, shadow.name)
        forget(conn, projection.name)
        for table, rebuilt in zip(projection.tables, shadow.tables, strict=True):
            table.drop(conn, checkfirst=True)
            conn.exec_driver_sql(f'ALTER TABLE "{rebuilt.name}" RENAME TO "{table.name}"')
            for index in table.indexes:
                index.create(conn)
        write_places(conn, projection.name, lease.places)
        reset = {"holder": "", "beat": 0, "fresh_at": "", "delay_ms": 0}
        carried = {"unreadable": built.unreadable if built else 0, "epoch": (owner or 0) + 1}
        conn.execute(insert(owners).values(projection=projection.name, version=projection.version, **reset, **carried))
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
    shadow = table.to_metadata(MetaData(), name=f"{table.name}__shadow")
    shadow.indexes.clear()  # the live table's indexes have these names
    return shadow


def _drop(store: BoardStore, shadow: AnyProjection) -> None:
    with store.writing() as conn:
        lock_schema(conn)
        forget(conn, shadow.name)
        for table in shadow.tables:
            table.drop(conn, checkfirst=True)


def _offsets(places: Mapping[int, FoldPosition]) -> dict[int, int]:
    return {partition: place.next_offset for partition, place in places.items() if place.next_offset}
