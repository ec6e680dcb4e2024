"""The same fact told again with other content: the first stands, and the hub's owner can see it."""

from __future__ import annotations

from typing import Any

import pytest

from hub.intake.intake import Intake
from hub.ledger import conflicts, cursors
from hub.ledger.ledger import Ledger
from hub.runtime.clock import FixedClock
from schemas.envelope import Event
from tests.pushing import NOON, Staff, crm, deal, delivery, events


def push(ledger: Ledger, body: bytes, id_: str, staff: Staff | None = None) -> tuple[str, ...]:
    intake = Intake(ledger, staff or Staff(), FixedClock(NOON))
    receiver = crm().receives
    assert receiver is not None
    return intake.push("crm", receiver, delivery(body, id_)).result().events


def noted(ledger: Ledger) -> list[Any]:
    with ledger.reading() as conn:
        return list(conflicts.about(conn, [event.id for event in events(ledger)]))


def test_other_content_under_the_same_version_is_noted_and_the_first_stands(ledger: Ledger) -> None:
    first = push(ledger, deal(amount=1000), "a")
    assert push(ledger, deal(amount=1880000), "b") == first
    (event,) = events(ledger)
    assert event.data["amount"] == "1000"
    (entry,) = noted(ledger)
    assert (entry.instance, entry.event_id, entry.subject, entry.times) == ("crm", event.id, event.subject, 1)
    assert entry.first == conflicts.digest(event) != entry.other
    assert b"1880000" in entry.body
    push(ledger, deal(amount=1880000), "c")
    push(ledger, deal(amount=7), "d")
    assert [each.times for each in noted(ledger)] == [2, 1]
    with ledger.reading() as conn:
        assert conflicts.counts(conn) == {"crm": 2}


def test_the_same_content_is_no_finding_however_it_comes(ledger: Ledger) -> None:
    """Nor when people.yaml has gained the account meanwhile."""
    push(ledger, deal(), "a", Staff({}))
    push(ledger, deal(), "b", Staff({}))
    push(ledger, deal(), "c")
    assert noted(ledger) == []


def test_pushes_that_are_taken_in_together_are_looked_at_too(ledger: Ledger) -> None:
    intake, receiver = Intake(ledger, Staff(), FixedClock(NOON)), crm().receives
    assert receiver is not None
    bodies = [deal(1, amount=1), deal(2, amount=2), deal(1, amount=3), deal(2, amount=2)]
    told = [intake.push("crm", receiver, delivery(body, f"m-{at}")) for at, body in enumerate(bodies)]
    assert len({one.result().events for one in told}) == 2
    assert [entry.subject for entry in noted(ledger)] == ["opportunity/crm/O-1"]


def test_what_is_kept_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "MAX_PER_INSTANCE", 3)
    for amount in range(10):
        push(ledger, deal(amount=amount, title="x" * 20_000), f"m-{amount}")
    kept = noted(ledger)
    assert len(kept) == 3
    assert all(len(entry.body) <= conflicts.MAX_BODY_BYTES for entry in kept)


def test_a_digest_names_what_an_event_says_and_nothing_that_the_hub_adds(ledger: Ledger) -> None:
    push(ledger, deal(), "a")
    (event,) = events(ledger)
    again: Event = event.model_copy(update={"recordedtime": "2027-01-01T00:00:00.000000Z", "sequence": "9"})
    assert conflicts.digest(again) == conflicts.digest(event)
    assert len(conflicts.digest(event)) == 32


def test_by_how_much_a_sources_clock_is_ahead_is_kept_until_it_is_not(ledger: Ledger) -> None:
    def move(ahead: float | None) -> dict[tuple[str, str], float]:
        at = "2026-11-20T12:00:00.000000Z"
        ledger.writer.run(lambda conn: cursors.move(conn, "pm", "issues", "c", at, ahead))
        with ledger.reading() as conn:
            return cursors.ahead(conn)

    assert move(3600.0) == {("pm", "issues"): 3600.0}
    assert move(None) == {("pm", "issues"): 3600.0}
    assert move(60.5) == {("pm", "issues"): 60.5}
    assert move(0.0) == {}
