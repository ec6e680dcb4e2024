"""Every store of boards keeps the same promises and holds the same rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import MetaData, delete, insert, inspect, select, update

from hub.errors import RetryableError
from hub.health.looking import board_places
from hub.kit.projection import AnyProjection, Projection
from hub.log.event_log import Record
from hub.log.memory_log import MemoryLog, MemoryReader
from hub.projector import registry
from hub.projector.folding import RowChange
from hub.projector.leftovers import leftover_boards, remove_boards, remove_leftovers
from hub.projector.rebuild import Snapshot, rebuild, snapshot
from hub.projector.rows import COPY_THRESHOLD, write_changes
from hub.projector.runner import BoardLease, Runner
from hub.projector.store import BoardStore, FencedError, owners, positions
from projections.tasks.fold import PROJECTION as TASKS
from projections.tasks.table import EMPTY
from schemas.envelope import Event
from tests.board_events import Deal, Relay, event, eventually
from tests.postgres_fixture import NewDatabase

NASTY = ("启动会", "a\x00b", "o'neill; DROP TABLE tasks;--", "🀄️ \\u0000 \\", "\t\n\r\\N\\.\b", "")


@pytest.fixture
def store(url: str) -> Iterator[BoardStore]:
    opened = BoardStore(url)
    opened.prepare(registry.all_projections().values())
    yield opened
    opened.close()


@pytest.fixture
def relay() -> Relay:
    """A log with three deals in all states."""
    sender = Relay(MemoryLog())
    for number in (1, 2, 3):
        deal = Deal(number, minutes=number * 20, tasks=NASTY)
        sender.send(deal.story())
        sender.send([deal.step(0, "accepted", 5), deal.step(1, "completed", 6), deal.step(1, "reopened", 7)])
        sender.send([deal.parked(4, 8), message(deal)])
    return sender


def message(deal: Deal) -> Event:
    said = {"to": "person/li.lei", "text": "赢单"}
    data = {"type": "message.send", "id": None, "arguments": said, "why": deal.why(50)}
    return event("hub.command.done", f"command/im/{deal.command(50)}", data, case=deal.case, minutes=9)


def fold_all(relay: Relay, store: BoardStore) -> None:
    for projection in registry.all_projections().values():
        Runner(relay.log, store, projection).catch_up()


def seen(store: BoardStore, projection: AnyProjection) -> Snapshot:
    with store.reading() as conn:
        return snapshot(conn, projection)


def digests(store: BoardStore) -> dict[str, str]:
    return {name: seen(store, projection).digest for name, projection in registry.all_projections().items()}


def test_a_rebuild_equals_every_board(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    before = digests(store)
    for projection in registry.all_projections().values():
        told: dict[int, int] = {}
        found = rebuild(relay.log, store, projection, verify=True, progress=told.__setitem__)
        assert found.equal
        assert found.differing == ()
        assert found.rows > 0
        assert told[found.records] == found.records
        assert rebuild(relay.log, store, projection).equal
    assert digests(store) == before


def test_a_rebuilt_board_has_its_indexes_and_can_be_rebuilt_again(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    before = indexes(store)
    for _ in range(2):
        assert rebuild(relay.log, store, TASKS).equal
        assert indexes(store) == before == {"tasks_case": ["case_id"]}


def indexes(store: BoardStore) -> dict[str | None, list[str | None]]:
    return {index["name"]: index["column_names"] for index in inspect(store.engine).get_indexes(TASKS.table.name)}


def test_a_rebuild_that_keeps_few_rows_in_memory_builds_the_same(
    relay: Relay, store: BoardStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fold_all(relay, store)
    assert isinstance(relay.log, MemoryLog)
    slow = Slow(relay.log.partitions, relay.log.records, relay.log.changed)
    monkeypatch.setattr("hub.projector.rebuild.MAX_BUFFERED_ROWS", 3)
    for projection in registry.all_projections().values():
        assert rebuild(slow, store, projection, verify=True).equal


@pytest.mark.parametrize("many", [1, COPY_THRESHOLD, 3 * COPY_THRESHOLD])
def test_rows_are_put_changed_and_deleted_few_and_many_at_once(store: BoardStore, many: int) -> None:
    first = {f"task/pm/{number}": {**EMPTY, "instance": "pm", "case_id": "c"} for number in range(many)}
    then = {key: {**row, "title": "t", "times": {"a": None}, "why": {"b": 2}} for key, row in first.items()}
    for before, after in ((None, first), (first, then), (then, None)):
        changes = {key: RowChange(before and before[key], after and after[key]) for key in first}
        with store.writing() as conn:
            write_changes(conn, TASKS.table, changes)
        assert store.rows(TASKS.table, first) == (after or {})


def test_what_was_changed_by_hand_is_found_and_mended(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    before = digests(store)
    card, gone = Deal(1).task(0), Deal(2).task(1)
    with store.writing() as conn:
        conn.execute(update(TASKS.table).where(TASKS.table.c.key == card).values(title="forged"))
        conn.execute(delete(TASKS.table).where(TASKS.table.c.key == gone))
    found = rebuild(relay.log, store, TASKS, verify=True)
    assert not found.equal
    assert found.differing == tuple(sorted((card, gone)))
    assert digests(store) != before
    assert rebuild(relay.log, store, TASKS).differing == tuple(sorted((card, gone)))
    assert digests(store) == before


def test_a_verify_is_exact_while_the_board_moves_on(relay: Relay, store: BoardStore) -> None:
    """Records that came after the board's position are no difference."""
    fold_all(relay, store)
    relay.send([Deal(1).step(0, "completed", 30)])
    assert rebuild(relay.log, store, TASKS, verify=True).equal
    fold_all(relay, store)
    assert rebuild(relay.log, store, TASKS, verify=True).equal


def test_a_writer_goes_on_after_a_rebuild_and_not_through_it(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    runner = Runner(relay.log, store, TASKS)
    lease = runner.try_claim()
    assert lease is not None
    rebuild(relay.log, store, TASKS)
    relay.send([Deal(1).step(0, "completed", 30)])
    with pytest.raises(FencedError):
        runner.fold(lease, new_records(relay, lease))
    fold_all(relay, store)
    assert rebuild(relay.log, store, TASKS, verify=True).equal


def test_a_writer_notices_a_database_that_went_on_from_an_older_copy(relay: Relay, store: BoardStore) -> None:
    """Under the same epoch and holder, as a standby has it that lacked the last commits: what they held is folded again."""
    fold_all(relay, store)
    runner = Runner(relay.log, store, TASKS)
    lease = runner.try_claim()
    assert lease is not None
    tables = (owners, positions, TASKS.table)
    with store.reading() as conn:
        copy = {table: [dict(row) for row in conn.execute(select(table)).mappings()] for table in tables}
    relay.send([Deal(1).step(0, "completed", 30)])
    runner.fold(lease, new_records(relay, lease))
    with store.writing() as conn:
        for table, rows in copy.items():
            conn.execute(delete(table))
            conn.execute(insert(table), rows)
    relay.send([Deal(2).step(0, "completed", 30)])
    with pytest.raises(FencedError):
        runner.fold(lease, new_records(relay, lease))
    store.release(TASKS.name, lease.claim)
    fold_all(relay, store)
    assert rebuild(relay.log, store, TASKS, verify=True).equal


def new_records(relay: Relay, lease: BoardLease) -> list[Record]:
    starts = {partition: place.next_offset for partition, place in lease.places.items()}
    return relay.log.reader("hub.events", starts).read(100, 0)


def test_another_version_is_built_anew_when_it_starts(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    before = seen(store, TASKS).digest
    with store.writing() as conn:
        conn.execute(update(TASKS.table).values(title="as version 1 had it"))
    projection = replace(TASKS, version=TASKS.version + 1)
    newer = Runner(relay.log, store, projection, renew=lambda wanted: rebuild(relay.log, store, wanted))
    assert newer.try_claim() is None  # it was rebuilt instead
    assert seen(store, TASKS).digest == before
    owner = store.owner("tasks")
    assert owner is not None
    assert owner.version == TASKS.version + 1


def test_a_board_that_is_no_more_leaves_nothing_once_nobody_writes_it(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    gone = _named(TASKS, "orders")
    for board in (gone, _named(TASKS, "orders__shadow")):
        Runner(relay.log, store, board).catch_up()
    before, moving = digests(store), Runner(relay.log, store, gone).try_claim()
    assert moving is not None
    found = leftover_boards(store, registry.all_projections())
    assert set(found) == {"orders", "orders__shadow"}
    store.beat("orders", moving.claim, None)  # a program of the version that has it
    assert remove_boards(store, found) == ["orders__shadow"]
    remove_leftovers(store, registry.all_projections(), threading.Event(), 0.0)
    assert leftover_boards(store, registry.all_projections()) == {}
    with store.reading() as conn:
        assert not [name for name in inspect(conn).get_table_names() if "orders" in name]
        assert not conn.execute(select(positions).where(positions.c.projection.like("orders%"))).all()
    assert digests(store) == before
    assert board_places(str(store.engine.url.render_as_string(False))).keys() == registry.all_projections().keys()


def _named(projection: Projection, name: str) -> Projection:
    """The same board under another name."""
    table = projection.table.to_metadata(MetaData(), name=f"board_{name}")
    table.indexes.clear()  # their names are taken
    return replace(projection, name=name, table=table)


def test_a_rebuild_that_is_overtaken_says_so_and_leaves_the_board(relay: Relay, store: BoardStore) -> None:
    fold_all(relay, store)
    before = digests(store)

    def overtake(done: int, total: int) -> None:
        with store.writing() as conn:
            conn.execute(delete(owners).where(owners.c.projection == "tasks__shadow"))

    assert isinstance(relay.log, MemoryLog)
    slow = Slow(relay.log.partitions, relay.log.records, relay.log.changed)
    with pytest.raises(RetryableError):
        rebuild(slow, store, TASKS, progress=overtake)
    assert digests(store) == before


class Slow(MemoryLog):
    """Gives one record at a time."""

    def reader(self, topic: str, positions: Mapping[int, int], *, gather: float = 0.0) -> MemoryReader:
        return OneByOne(self, topic, dict(positions))


class OneByOne(MemoryReader):
    """Whatever is asked for."""

    def read(self, limit: int, timeout: float) -> list[Record]:
        return super().read(1, timeout)


def test_many_runners_at_once_write_each_event_once(relay: Relay, store: BoardStore) -> None:
    stop, failures = threading.Event(), list[BaseException]()

    def run(number: int) -> None:
        try:
            Runner(relay.log, store, TASKS, holder=f"elsewhere:1:{number}").run(stop)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10, 30):
        relay.send(Deal(number).story())
    eventually(lambda: sum(p.next_offset for p in store.places("tasks").values()) == sum(relay.last.values()))
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert rebuild(relay.log, store, TASKS, verify=True).equal


@pytest.mark.systems
def test_both_stores_hold_the_very_same(relay: Relay, tmp_path: Path, postgres: NewDatabase) -> None:
    told = []
    for url in (f"sqlite:///{tmp_path}/boards.sqlite", postgres()):
        store = BoardStore(url)
        store.prepare(registry.all_projections().values())
        fold_all(relay, store)
        told.append(digests(store))
        store.close()
    assert told[0] == told[1]
