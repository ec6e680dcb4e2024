"""What is asked every few milliseconds costs the same however long the history is, and however much waits: databases count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from hub.intake import correlation
from hub.ledger import commands, outbox, parked
from hub.ledger.ledger import Ledger
from tests.events import command, won
from tests.postgres_fixture import NewDatabase

LOOKS: dict[str, Callable[[Connection], object]] = {
    "whether there is anything to relay": outbox.waiting,
    "what to relay": lambda conn: outbox.take(conn, 500, 12),
    "what is held": outbox.held,
    "what may be released": correlation.releasable,
    "which deliveries were asked about": lambda conn: parked.pending_requests(conn, "delivery"),
    "which instances have work": commands.instances,
    "whose turn it is": lambda conn: commands.ready(conn, "pm", "2027", 16),
    "whose trial it is": lambda conn: commands.ready_least_tried(conn, "pm", "2027", 16),
    "what comes due": lambda conn: commands.next_due(conn, "2020"),
    "what is under way": commands.sending,
    "what is under way somewhere": lambda conn: commands.in_flight(conn, "pm"),
    "how much waits": commands.counts,
}


HOWEVER_MUCH_WAITS = {
    name: look for name, look in LOOKS.items() if name not in ("whose trial it is", "how much waits", "what to relay")
}


def with_history(url: str, length: int, waiting: int = 0) -> Ledger:
    """A ledger in which so many events were published and so many commands done, while so many wait, at one instance or more."""
    ledger = Ledger(url)
    deals = [won(deal=f"O-{number}") for number in range(length)]
    late = [command(won(deal=f"L-{number}")) for number in range(waiting)]

    def fill(conn: Connection) -> None:
        outbox.record_all(conn, [(deal, "crm") for deal in deals])
        asked = [command(deal) for deal in deals]
        commands.accept_all(conn, [(each, each.to_json()) for each in asked], "2026")
        conn.exec_driver_sql("UPDATE commands SET state = 'DONE'")
        conn.exec_driver_sql("UPDATE outbox SET published_at = '2026', sequence = id, partition = 0")
        commands.accept_all(conn, [(each, each.to_json()) for each in late], "2026")
        conn.exec_driver_sql("UPDATE commands SET instance = 'im' WHERE state = 'NEW' AND (seq / 2) * 2 = seq")
        conn.exec_driver_sql(
            "UPDATE commands SET due_at = '2026', state = 'RETRY' WHERE state = 'NEW' AND (seq / 5) * 5 = seq"
        )

    ledger.writer.run(fill)
    return ledger


def steps(ledger: Ledger, look: Callable[[Connection], object]) -> int:
    """What a look costs the second time: the first reads the schema."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    with ledger.reading() as conn:
        look(conn)
        raw: Any = conn.connection.dbapi_connection
        raw.set_progress_handler(count, 1)
        look(conn)
        raw.set_progress_handler(None, 1)
    return counted


@pytest.mark.parametrize("look", LOOKS.values(), ids=list(LOOKS))
def test_a_long_history_makes_no_look_dearer(tmp_path: Path, look: Callable[[Connection], object]) -> None:
    short, long = [with_history(f"sqlite:///{tmp_path}/{length}", length) for length in (20, 400)]
    assert 0 < steps(short, look) == steps(long, look)
    short.close()
    long.close()


@pytest.mark.parametrize("look", HOWEVER_MUCH_WAITS.values(), ids=list(HOWEVER_MUCH_WAITS))
def test_a_backlog_makes_no_look_dearer(tmp_path: Path, look: Callable[[Connection], object]) -> None:
    """An instance that is away for a day leaves much waiting; the others must not feel it."""
    short, long = [with_history(f"sqlite:///{tmp_path}/{waiting}", 20, waiting) for waiting in (80, 800)]
    assert 0 < steps(short, look) == steps(long, look)
    short.close()
    long.close()


def pages(ledger: Ledger, look: Callable[[Connection], object]) -> int:
    """The pages that PostgreSQL touches for a look, by its own count."""
    asked = list[tuple[str, Any]]()

    def note(conn: Connection, cursor: object, statement: str, values: Any, *_: object) -> None:
        asked.append((statement, values))

    with ledger.reading() as conn:
        event.listen(ledger.engine, "before_cursor_execute", note)
        look(conn)
        assert asked
        event.remove(ledger.engine, "before_cursor_execute", note)
        total = 0
        for statement, values in asked:
            plan = conn.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values).scalar_one()
            total += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
    return total


@pytest.fixture(scope="module")
def busy(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """A ledger on PostgreSQL with a history and a backlog that it has statistics of."""
    new_database: NewDatabase = request.getfixturevalue("postgres")
    ledger = with_history(new_database(), 5000, 1000)
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("VACUUM ANALYZE")
    yield ledger
    ledger.close()


@pytest.mark.systems
@pytest.mark.parametrize("look", HOWEVER_MUCH_WAITS.values(), ids=list(HOWEVER_MUCH_WAITS))
def test_postgresql_goes_the_short_way(busy: Ledger, look: Callable[[Connection], object]) -> None:
    """By its statistics it chooses its ways itself. The history alone has some hundreds of pages."""
    assert pages(busy, look) < 120
