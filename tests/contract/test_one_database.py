"""Ledger and boards named as one database: each has tables of its own, whoever makes them first."""

from __future__ import annotations

import pytest
from sqlalchemy import MetaData, inspect

from hub.ledger import outbox
from hub.ledger.ledger import Ledger, metadata
from hub.log.memory_log import MemoryLog
from hub.projector import registry
from hub.projector.rebuild import rebuild
from hub.projector.runner import Runner
from hub.projector.runners import BoardRunners
from hub.projector.store import PREFIX, UNPREFIXED_TABLES, BoardStore, histories, owners
from hub.runtime.clock import SystemClock
from tests.board_events import Deal, Relay, eventually
from tests.events import won


@pytest.mark.parametrize("first", ["ledger", "boards"])
def test_ledger_and_boards_share_one_database(url: str, first: str) -> None:
    relay = Relay(MemoryLog())
    relay.send(Deal(1).story())
    if first == "ledger":
        Ledger(url).close()
    store = BoardStore(url)
    crew = BoardRunners(relay.log, store, registry.all_projections().values())
    crew.start()
    ledger = Ledger(url)
    eventually(lambda: all(store.places(name) for name in registry.all_projections()))
    crew.stop()
    assert crew.error is None
    ledger.writer.run(lambda conn: outbox.record(conn, [won("O-1")], "crm"))
    for projection in registry.all_projections().values():
        assert rebuild(relay.log, store, projection).equal
    with ledger.reading() as conn:
        assert outbox.counts(conn)["accepted"] == 1
    store.close()
    ledger.close()


def test_no_table_of_a_board_can_be_one_of_the_ledgers(url: str) -> None:
    store = BoardStore(url)
    store.prepare(registry.all_projections().values())
    names = set(inspect(store.engine).get_table_names())
    assert names
    assert {name for name in names if not name.startswith(PREFIX)} == set()
    assert not {name for name in metadata.tables if name.startswith(PREFIX)}
    store.close()


def test_a_store_of_before_goes_on_under_its_new_names(url: str) -> None:
    relay, store = Relay(MemoryLog()), BoardStore(url)
    relay.send(Deal(1).story())
    store.prepare()
    for projection in registry.all_projections().values():
        Runner(relay.log, store, projection, SystemClock()).catch_up()
    with store.writing() as conn:  # as a version before this one has named them
        histories.drop(conn)
        for name in UNPREFIXED_TABLES:
            conn.exec_driver_sql(f'ALTER TABLE "{PREFIX}{name}" RENAME TO "{name}"')
        conn.exec_driver_sql('CREATE TABLE "tasks__shadow" (key TEXT)')
    store.prepare(registry.all_projections().values())
    assert all(name.startswith(PREFIX) for name in inspect(store.engine).get_table_names())
    for projection in registry.all_projections().values():
        assert rebuild(relay.log, store, projection, verify=True).equal
    store.close()


def test_a_database_in_which_the_ledger_was_first_is_mended(url: str) -> None:
    """A version before this one made its `owners` beside the ledger's `positions`, and ended there."""
    Ledger(url).close()
    store, relay = BoardStore(url), Relay(MemoryLog())
    relay.send(Deal(1).story())
    with store.writing() as conn:
        for table in (owners, *(projection.table for projection in registry.projections().values())):
            table.to_metadata(MetaData(), name=table.name.removeprefix(PREFIX)).create(conn)
    store.prepare(registry.all_projections().values())
    for projection in registry.all_projections().values():
        Runner(relay.log, store, projection, SystemClock()).catch_up()
    assert {"outbox", "positions"} <= set(inspect(store.engine).get_table_names())
    store.close()
