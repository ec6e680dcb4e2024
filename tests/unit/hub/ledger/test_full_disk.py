"""The ledger's writer on a disk that fills up in the middle of a transaction: nobody is told of success that was undone."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, insert
from sqlalchemy.exc import OperationalError

from hub.errors import RetryableError
from hub.ledger import links, outbox
from hub.ledger.ledger import Ledger
from schemas.envelope import Event
from tests.events import won

SMALL, LARGE = 100, 60_000


def limit(engine: Engine, pages: int) -> None:
    """Let the database grow by so many pages and no more: SQLite then says that the disk is full, in the statement itself."""
    with engine.connect() as conn:
        there = int(conn.exec_driver_sql("PRAGMA page_count").scalar_one())

    @event.listens_for(engine, "begin")
    def begin(conn: Connection) -> None:
        conn.exec_driver_sql(f"PRAGMA max_page_count={there + pages}")


def together(ledger: Ledger, sizes: list[int]) -> list[tuple[str, Future[int]]]:
    """Ask for events of these sizes, all in one transaction; their ids, and what becomes of each."""
    gate = threading.Event()
    ledger.writer.submit(lambda conn: gate.wait(10))
    asked = []
    for number, size in enumerate(sizes):
        told = won(f"O-{number}", data={"name": "x" * size})
        asked.append((told.id, ledger.writer.submit(functools.partial(_record, told))))
    gate.set()
    return asked


def _record(told: Event, conn: Connection) -> int:
    return outbox.record(conn, [told], "crm")


@pytest.mark.parametrize("pages", [2, 12, 30])
def test_what_was_answered_well_is_kept_and_nothing_else(tmp_path: Path, pages: int) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    try:
        limit(ledger.engine, pages)
        refused = 0
        for id_, answer in together(ledger, [SMALL, SMALL, SMALL, LARGE, LARGE, LARGE, SMALL]):
            error = answer.exception(10)
            with ledger.reading() as conn:
                assert (outbox.find(conn, id_) is not None) == (error is None)
            if error is not None:
                refused += 1
                assert isinstance(error, RetryableError)
                assert error.code == "HUB-E5003"
        assert refused
    finally:
        ledger.close()


def test_work_that_shrugs_off_a_full_disk_keeps_nothing(tmp_path: Path) -> None:
    """A reader that parks what it could not take in: what came before in the same transaction is gone, so all of it must be."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.sqlite")
    try:
        limit(ledger.engine, 12)
        before, after = (won(f"O-{n}", data={"name": "x" * SMALL}) for n in (1, 2))
        large = {"object": "deal", "case_id": "x" * 90_000}

        def work(conn: Connection) -> None:
            outbox.record(conn, [before], "crm")
            try:
                with conn.begin_nested():
                    conn.execute(
                        insert(links.links).values(large)
                    )  # of one row, it takes the whole transaction with it
            except OperationalError:
                outbox.record(conn, [after], "crm")

        with pytest.raises(RetryableError):
            ledger.writer.run(work)
        with ledger.reading() as conn:
            assert outbox.counts(conn)["accepted"] == 0
        ledger.writer.run(lambda conn: outbox.record(conn, [after], "crm"))
        with ledger.reading() as conn:
            assert outbox.find(conn, after.id) is not None
    finally:
        ledger.close()
