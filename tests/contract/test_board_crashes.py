"""A board's database is killed amid commits that do not wait for its disk: what it has then is one of the commits, whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from hub.errors import RetryableError
from hub.projector import registry
from hub.projector.folding import FoldPosition, RowChange
from hub.projector.store import Batch, BoardStore, Claim
from projections.tasks.table import EMPTY
from tests.postgres_server import PostgresServer, running_server

pytestmark = pytest.mark.systems

TASKS = registry.projections()["tasks"]
KEYS = [f"task/pm/{number}" for number in range(20)]
CRASHES = 5


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with running_server(durable=True) as made:
        yield made


@pytest.fixture
def store(server: PostgresServer) -> Iterator[BoardStore]:
    opened = BoardStore(server.database())
    opened.prepare([TASKS])
    yield opened
    opened.close()


class Writer:
    """Commits number after number: all rows have it as their title, and the board's place is it."""

    def __init__(self, store: BoardStore) -> None:
        self.store, self.done = store, 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        before = read(self.store)
        claim = self.store.claim(TASKS, "writer", self.store.owner("tasks"))
        assert claim is not None
        try:
            while True:
                self.commit(claim, before)
                before += 1
                self.done += 1
        except RetryableError:
            pass  # the server was killed

    def commit(self, claim: Claim, before: int) -> None:
        change = RowChange(row(before) if before else None, row(before + 1))
        changes = {TASKS.table: dict.fromkeys(KEYS, change)}
        self.store.commit("tasks", claim, Batch({0: FoldPosition(before + 1)}, changes))


def row(number: int) -> dict[str, object]:
    return {**EMPTY, "instance": "pm", "case_id": "c", "title": str(number)}


def read(store: BoardStore) -> int:
    """The commit that a board is at; it is in the place and in every row."""
    place = store.places("tasks").get(0, FoldPosition()).next_offset
    rows = store.rows(TASKS.table, KEYS)
    assert {each["title"] for each in rows.values()} == ({str(place)} if place else set())
    return place


def test_a_killed_server_has_a_whole_commit(server: PostgresServer, store: BoardStore) -> None:
    known = 0
    for _ in range(CRASHES):
        with Writer(store) as writer:
            deadline = time.monotonic() + 60
            while writer.done < 50 and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
        assert writer.done >= 50
        server.start()
        found = read(store)
        assert 0 <= found <= known + writer.done + 1
        known = found
    assert known > 0


def test_only_its_own_transactions_do_not_wait(store: BoardStore) -> None:
    def waits() -> str:
        with store.reading() as conn:
            return str(conn.exec_driver_sql("SHOW synchronous_commit").scalar_one())

    with store.writing() as conn:
        assert conn.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off"
    assert waits() == "on"
