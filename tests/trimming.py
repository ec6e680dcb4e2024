"""A trimmer for tests: it trims all that the log has, at once, unless told otherwise."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hub.executor.ledger_catch_up import LedgerCatchUp
from hub.intake.trimmer import Trimmer, TrimmingPace
from hub.ledger import identity, outbox, retention, trimmed
from hub.ledger.ledger import Ledger
from hub.ledger.retention import BackupRecord
from hub.log.event_log import EventLog
from hub.log.memory_log import MemoryLog
from hub.runtime.clock import Clock, SystemClock
from schemas.topics import EVENTS
from tests.events import AT

AT_ONCE = TrimmingPace(rest=0.0, stuck=0.0)


def trimmer(
    ledger: Ledger, log: MemoryLog, clock: Clock | None = None, *, needs_backup: bool = False, **more: Any
) -> Trimmer:
    """One that is sure of its ledger. `needs_backup`: only one broker keeps the log."""
    log.replicas = 1 if needs_backup else 3
    clock = clock or SystemClock()
    recall = LedgerCatchUp(ledger, log, clock)
    recall.make_sure()
    told = {"keep": timedelta(0), "pace": AT_ONCE, **more}
    return Trimmer(ledger, log, clock, recall, **told)


def trim(ledger: Ledger, log: MemoryLog, **more: Any) -> int:
    """Look once; how many rows went."""
    made = trimmer(ledger, log, **more)
    try:
        return made.look()
    finally:
        made._lease.leave(ledger)


def note_backup(ledger: Ledger, log: EventLog, next_offsets: dict[int, int]) -> None:
    """As `hub backup` does at its end."""

    def work(conn: Any) -> None:
        backup = BackupRecord("/backups", AT, log.identity(EVENTS.name), identity.last_cut(conn), next_offsets)
        retention.record_backup(conn, backup)

    ledger.writer.run(work)


def kept(ledger: Ledger) -> tuple[int, int]:
    """How many events were taken in, and how many of them have a row."""
    with ledger.reading() as conn:
        accepted = outbox.counts(conn)["accepted"]
        return accepted, accepted - trimmed.count(conn)
