"""Random histories of taking in, relaying, trimming, repeating, crashing and going back to a copy: a model tells what must hold."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import event as events_of

from hub.coordination import Lease
from hub.intake.relay import Relay
from hub.intake.trimmer import TrimmingPace
from hub.ledger import conflicts, outbox, trimmed
from hub.ledger.ledger import Ledger
from hub.log.memory_log import MemoryLog
from hub.replay.audit.audit import audit
from hub.runtime.clock import SystemClock
from hub.runtime.failpoints import FailpointError
from schemas.envelope import Event
from schemas.topics import EVENTS
from tests.contract.test_recall import ids_by_number
from tests.events import won
from tests.trimming import note_backup, trimmer

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLACES = ("trim.chosen", "ledger.trimming", "ledger.before-commit", "ledger.committed")


@dataclass
class Model:
    """What was taken in: event id → amount; and the other amounts that were told later."""

    accepted: dict[str, str] = field(default_factory=dict)
    others: set[tuple[str, str]] = field(default_factory=set)

    def tell(self, events: list[Event]) -> None:
        for event in events:
            amount = event.data["amount"]
            if self.accepted.setdefault(event.id, amount) != amount:
                self.others.add((event.id, amount))


class History:
    """One hub, and what happens to it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.folder = random.Random(seed), folder
        self.file = folder / f"{seed}.sqlite"
        self.ledger, self.log, self.model = self.opened(), MemoryLog(), Model()
        self.numbers = 0

    def opened(self) -> Ledger:
        """Without a wait for the disk: what crashes here are programs."""
        ledger = Ledger(f"sqlite:///{self.file}")
        ledger.engine.dispose()
        events_of.listen(ledger.engine, "connect", lambda conn, _: conn.execute("PRAGMA synchronous=OFF"))
        return ledger

    def step(self) -> None:
        name = self.random.choices(
            ("tell", "repeat", "relay", "trim", "crash", "backup", "again", "go_back"), (6, 6, 6, 8, 3, 4, 1, 1)
        )[0]
        getattr(self, name)()

    def tell(self) -> None:
        count = self.random.randrange(1, 12)
        self._record([deal(self.numbers + n) for n in range(count)])
        self.numbers += count

    def repeat(self) -> None:
        known = self.random.sample(range(self.numbers), min(self.numbers, 6))
        self._record([deal(n, self.random.choice(("1", "1", "2"))) for n in known])

    def _record(self, events: list[Event]) -> None:
        new = sum(event.id not in self.model.accepted for event in events)
        told = [(event, "crm") for event in events]

        def work(conn: object) -> int:
            found = outbox.record_all(conn, told)  # type: ignore[arg-type]
            conflicts.detect(conn, told)  # type: ignore[arg-type]
            return found

        assert self.ledger.writer.run(work) == new
        self.model.tell(events)

    def relay(self) -> None:
        relay = Relay(self.ledger, self.log, SystemClock())
        for _ in range(self.random.choice((1, 2, 9))):
            relay._relay_batch()
        relay._close()
        relay._lease.leave(self.ledger)

    def backup(self) -> None:
        ends = self.log.ends(EVENTS.name)
        note_backup(self.ledger, self.log, {p: max(0, end - self.random.randrange(3)) for p, end in ends.items()})

    def trim(self) -> None:
        pace = TrimmingPace(rest=0.0, stuck=0.0, least=self.random.choice((1, 3, 20)), most=20)
        trimmer(self.ledger, self.log, needs_backup=self.random.random() < 0.7, pace=pace, lease=mine()).look()

    def crash(self) -> None:
        with crashing(self.random.choice(PLACES), self.random.randrange(1, 6)):
            try:
                self.trim()
            except FailpointError:
                self.ledger.close()
                self.ledger = self.opened()

    def again(self) -> None:
        """Some of what was published is published again under other numbers, as a repair does it."""
        partition = self.random.randrange(12)
        with self.ledger.reading() as conn:
            rows = outbox.rows_in_range(conn, partition, 1, 10**6)
            ends = outbox.published_ends(conn)
        there = [row.id for row in rows if row.sequence <= ends.get(partition, 0)]
        chosen = self.random.sample(there, min(len(there), 2))
        self.ledger.writer.run(lambda conn: outbox.resequence(conn, chosen))

    def go_back(self) -> None:
        """The ledger is a copy from before the last few steps; it learns from the log what it forgot."""
        self.relay_all()
        self.ledger.close()
        copy = self.file.with_suffix(".copy")
        shutil.copy(self.file, copy)
        self.ledger = self.opened()
        for _ in range(5):
            self.random.choice((self.tell, self.repeat, self.relay, self.trim))()
        self.relay_all()
        self.ledger.close()
        for suffix in ("-wal", "-shm"):
            self.file.with_name(self.file.name + suffix).unlink(missing_ok=True)
        shutil.copy(copy, self.file)
        self.ledger = self.opened()
        with self.ledger.reading() as conn:
            known = conflicts.about(conn, list(self.model.accepted))
        self.model.others = {(row.event_id, row.body.decode().partition('"amount":"')[2][0]) for row in known}
        self.relay_all()

    def relay_all(self) -> None:
        relay = Relay(self.ledger, self.log, SystemClock())
        while relay._relay_batch() or relay._sent:
            relay._sent_at = -1e9
        relay._close()
        relay._lease.leave(self.ledger)

    def check(self) -> None:
        with self.ledger.reading() as conn:
            assert outbox.counts(conn)["accepted"] == len(self.model.accepted)
            assert trimmed.count(conn) == sum(1 for _ in trimmed.all_hashes(conn))
            noted = conflicts.about(conn, list(self.model.accepted))
            rows = {row.event_id for row in conn.execute(outbox.outbox.select())}
            assert not any(trimmed.is_trimmed(conn, event_id) for event_id in rows)
            assert all(event_id in rows or trimmed.is_trimmed(conn, event_id) for event_id in self.model.accepted)
        assert {row.event_id for row in noted} == {event_id for event_id, _ in self.model.others}

    def rest(self) -> None:
        """All is sent and trimmed: the log has each event, once by its number."""
        self.relay_all()
        trimmer(self.ledger, self.log, lease=mine()).look()
        self.check()
        with self.ledger.reading() as conn:
            assert outbox.count(conn) == 0
            report = audit(self.log, conn, self.ledger.outbox_id, NOW, lambda: outbox.sequence_ends(conn))
        assert {each for told in ids_by_number(self.log).values() for each in told} == set(self.model.accepted)
        wrong = [each for each in report.findings if "twice" not in each.what and "state" not in each.place]
        assert wrong == []


def mine() -> Lease:
    """Of one owner, so that the next need not wait for one who crashed: it would be dead."""
    return Lease("trim", SystemClock(), owner="me")


def deal(number: int, amount: str = "1") -> Event:
    return won(f"O-{number}", version=str(number), data={"name": "a", "amount": amount})


@contextmanager
def crashing(place: str, nth: int) -> Iterator[None]:
    passes = [0]

    def reach(name: str) -> None:
        passes[0] += name == place
        if name == place and passes[0] == nth:
            raise FailpointError(name)

    with pytest.MonkeyPatch.context() as patched:
        for module in ("hub.intake.trimmer", "hub.ledger.trimming", "hub.ledger.database"):
            patched.setattr(f"{module}.failpoint", reach)
        yield


@pytest.mark.parametrize("seed", range(8))
def test_a_history_is_as_its_model(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path, seed)
    try:
        for _ in range(40):
            history.step()
        history.check()
        history.rest()
    finally:
        history.ledger.close()
