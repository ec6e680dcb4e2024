"""Two programs that write to one ledger at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection

from hub.errors import RetryableError
from hub.ledger import leases
from hub.ledger.ledger import Ledger


@pytest.fixture
def programs(postgres: Callable[[], str]) -> Iterator[tuple[Ledger, Ledger]]:
    """Their ledgers. SQLite lets one write after the other, so this is PostgreSQL's matter."""
    url = postgres()
    both = (Ledger(url), Ledger(url))
    yield both
    for ledger in both:
        ledger.close()


def crossing(here: str, there: str, meet: threading.Barrier) -> Callable[[Connection], None]:
    """Work that writes one row, waits until the other program has written its own, and then wants that one."""

    def work(conn: Connection) -> None:
        leases.acquire(conn, here, "a", 60.0)
        meet.wait(30)
        leases.release(conn, there, "a")

    return work


def test_of_two_that_wait_for_each_other_one_is_told_to_try_again(programs: tuple[Ledger, Ledger]) -> None:
    first, second = programs
    first.writer.run(lambda conn: [leases.acquire(conn, job, "a", 60.0) for job in ("x", "y")])
    meet = threading.Barrier(2)
    asked = (first.writer.submit(crossing("x", "y", meet)), second.writer.submit(crossing("y", "x", meet)))
    errors = [error for one in asked if (error := one.exception(30)) is not None]
    assert [type(error) for error in errors] == [RetryableError]
    for ledger in programs:  # and both write on
        assert ledger.writer.run(lambda conn: leases.acquire(conn, "z", "a", 60.0)) == 1
