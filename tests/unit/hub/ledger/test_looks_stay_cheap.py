"""What is asked every few milliseconds costs the same however long the history is: SQLite counts its own steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from connectors import casing
from hub.ledger import commands, outbox, parked
from hub.ledger.ledger import Ledger
from tests.events import command, won

LOOKS: dict[str, Callable[[Connection], object]] = {
    "whether there is anything to relay": outbox.waiting,
    "what to relay": lambda conn: outbox.take(conn, 500, 12),
    "what is held": outbox.held,
    "what may be released": casing.releasable,
    "which deliveries were asked about": lambda conn: parked.asked(conn, "delivery"),
    "which instances have work": commands.instances,
    "whose turn it is": lambda conn: commands.ready(conn, "pm", "2027", 16),
    "whose trial it is": lambda conn: commands.ready_least_tried(conn, "pm", "2027", 16),
    "what comes due": lambda conn: commands.next_due(conn, "2020"),
    "what is under way": commands.sending,
    "what is under way somewhere": lambda conn: commands.in_flight(conn, "pm"),
    "how much waits": commands.counts,
}


def with_history(file: Path, length: int) -> Ledger:
    """A ledger in which so many events were published and so many commands done."""
    ledger = Ledger(f"sqlite:///{file}")
    deals = [won(deal=f"O-{number}") for number in range(length)]

    def fill(conn: Connection) -> None:
        outbox.record_all(conn, [(deal, "crm") for deal in deals])
        asked = [command(deal) for deal in deals]
        commands.accept_all(conn, [(each, each.to_json()) for each in asked], "2026")
        conn.exec_driver_sql("UPDATE commands SET state = 'DONE'")
        conn.exec_driver_sql("UPDATE outbox SET published_at = '2026', sequence = id, partition = 0")

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
    short, long = with_history(tmp_path / "short", 20), with_history(tmp_path / "long", 400)
    assert 0 < steps(short, look) == steps(long, look)
    short.close()
    long.close()
