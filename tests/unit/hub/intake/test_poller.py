"""A stream is read page by page, each with its cursor in one transaction; outages are told once and waited out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Connection

from hub.coordination import Lease
from hub.errors import FatalError, RejectedError, RetryableError
from hub.intake.intake import Intake
from hub.intake.poller import MAX_BACKOFF_S, OTHER_OWNER_RETRY_S, REFUSED_CREDENTIALS_RETRY_S, Poller, Stream
from hub.kit.connector import Page, Unmapped
from hub.ledger import cursors
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from tests.background import background
from tests.pushing import NOON, Staff, events, fact, open_entries

AWAY = RetryableError("HUB-E4001", instance="crm", url="http://crm", reason="refused")
DENIED = FatalError("HUB-E4003", instance="crm", login="hub")
Answer = Page | Exception


@dataclass
class System:
    """A system that answers as told, and remembers what it was asked."""

    answers: list[Answer]
    asked: list[str | None] = field(default_factory=list)
    then: Callable[[], None] = lambda: None
    streams: tuple[str, ...] = ("deals",)
    interval: float = 7.0

    def poll(self, stream: str, cursor: str | None) -> Page:
        self.asked.append(cursor)
        answer = self.answers.pop(0) if self.answers else Page((), cursor or "0")
        if not self.answers:
            self.then()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what is logged."""
    seen: list[str] = []

    class Log:
        def _note(self, event: str, **facts: object) -> None:
            seen.append(event)

        info = warning = error = exception = _note

    monkeypatch.setattr("hub.intake.poller.log", Log())
    return seen


def poller(ledger: Ledger, *answers: Answer) -> tuple[Poller, System]:
    system = System(list(answers))
    clock = FixedClock(NOON)
    return Poller(Stream("crm", "deals", system), ledger, Intake(ledger, Staff(), clock), clock), system


def page(version: int, *, more: bool = False) -> Page:
    return Page((fact(version=str(version)),), str(version), more)


def cursor(ledger: Ledger) -> str | None:
    with ledger.reading() as conn:
        return cursors.get(conn, "crm", "deals")


def test_pages_are_read_at_once_while_there_are_more(ledger: Ledger) -> None:
    reads, system = poller(ledger, page(1, more=True), page(2))
    assert [reads.turn(), reads.turn()] == [0.0, 7.0]
    assert (system.asked, cursor(ledger)) == ([None, "1"], "2")
    assert [one.subjectversion for one in events(ledger)] == ["1", "2"]


def test_a_page_that_moves_nothing_is_not_asked_for_at_once_again(ledger: Ledger) -> None:
    reads, _ = poller(ledger, page(1), Page((), "1", more=True))
    assert [reads.turn(), reads.turn()] == [7.0, 7.0]


def test_what_came_before_adds_nothing(ledger: Ledger) -> None:
    reads, _ = poller(ledger, page(1), page(1))
    reads.turn()
    reads.turn()
    assert len(events(ledger)) == 1


def test_what_cannot_be_told_is_parked_and_the_cursor_goes_on(ledger: Ledger) -> None:
    bad = Unmapped(b"{}", "HUB-E4307", {"reason": "x"}, "opportunity/crm/O-1")
    reads, _ = poller(ledger, Page((bad, fact(version="2")), "2"))
    reads.turn()
    assert [entry.code for entry in open_entries(ledger)] == ["HUB-E4307", "HUB-E6104"]
    assert (cursor(ledger), events(ledger)) == ("2", [])


def test_an_outage_is_waited_out_with_growing_pauses_and_told_twice(ledger: Ledger, told: list[str]) -> None:
    reads, _ = poller(ledger, *[AWAY] * 12, page(1))
    pauses = [reads.turn() for _ in range(12)]
    assert reads.state == "away"
    assert pauses[0] <= 1.0
    assert MAX_BACKOFF_S / 2 <= pauses[-1] <= MAX_BACKOFF_S
    assert reads.turn() == 7.0
    assert (reads.state, told) == ("ok", ["poll.waits", "poll.goes_on"])
    assert cursor(ledger) == "1"


def test_a_system_that_says_when_to_come_again_is_obeyed(ledger: Ledger) -> None:
    reads, _ = poller(ledger, RetryableError("HUB-E4004", retry_after=90.0, instance="crm"))
    assert reads.turn() == 90.0


def test_refused_credentials_pause_the_stream_and_are_told_once(ledger: Ledger, told: list[str]) -> None:
    reads, _ = poller(ledger, DENIED, DENIED, AWAY, page(1))
    assert [reads.turn(), reads.turn()] == [REFUSED_CREDENTIALS_RETRY_S, REFUSED_CREDENTIALS_RETRY_S]
    assert reads.state == "paused"
    reads.turn()
    reads.turn()
    assert [one.type for one in events(ledger)] == [
        "hub.connector.paused",
        "crm.opportunity.changed",
        "hub.connector.resumed",
    ]
    assert events(ledger)[0].subject == "connector/hub/crm"
    assert told == ["poll.paused", "poll.goes_on"]


def test_a_pause_that_was_told_before_a_restart_is_not_told_again(ledger: Ledger) -> None:
    for _ in range(2):
        reads, _system = poller(ledger, DENIED)
        reads._lease = Lease("poll", FixedClock(NOON), seconds=0.0)
        reads.turn()
    assert [one.type for one in events(ledger)] == ["hub.connector.paused"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), RejectedError("HUB-E4006", instance="crm", reason="x")])
def test_a_connector_that_breaks_keeps_its_cursor_and_is_tried_again(
    ledger: Ledger, told: list[str], error: Exception
) -> None:
    reads, _ = poller(ledger, page(1), error, page(2))
    waits = [reads.turn() for _ in range(3)]
    assert 0 < waits[1] <= 1.0
    assert cursor(ledger) == "2"
    assert told[-1] == "poll.goes_on"


def test_a_stream_that_another_program_reads_is_left_to_it(ledger: Ledger) -> None:
    other = Lease("poll/crm/deals", FixedClock(NOON), seconds=60.0)
    assert ledger.writer.run(other.mine)
    reads, system = poller(ledger, page(1))
    assert (reads.turn(), reads.state, system.asked) == (OTHER_OWNER_RETRY_S, "elsewhere", [])


def test_a_page_whose_lease_was_lost_on_the_way_is_not_kept(ledger: Ledger) -> None:
    reads, system = poller(ledger, page(1))

    def lose() -> None:
        def work(conn: Connection) -> bool:
            reads._lease.let_go(conn)
            return Lease("poll/crm/deals", FixedClock(NOON), seconds=60.0).mine(conn)

        assert ledger.writer.run(work)

    system.then = lose
    reads.turn()
    assert (cursor(ledger), events(ledger)) == (None, [])


def test_it_runs_until_it_is_stopped(ledger: Ledger) -> None:
    reads, system = poller(ledger, page(1, more=True), page(2, more=True), page(3))
    system.interval = 0.001
    with background(reads):
        while cursor(ledger) != "3":
            pass
    assert len(events(ledger)) == 3
