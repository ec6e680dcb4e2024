"""What one instance may have parked is bounded, on SQLite and on PostgreSQL; others, and what is not parked, go on."""

from __future__ import annotations

from typing import Any

import pytest

from hub.config.settings import Quota
from hub.intake.intake import Intake, QuotaError
from hub.ledger import parked
from hub.ledger.ledger import Ledger
from hub.ledger.parked_quota import Quotas, count
from hub.runtime.clock import FixedClock
from tests.pushing import NOON, Staff, crm, deal, delivery, open_entries


def pushed(intake: Intake, number: int, instance: str = "crm", **more: Any) -> None:
    receiver = crm(instance).receives
    assert receiver is not None
    intake.push(instance, receiver, delivery(deal(number, **more), f"msg_{number}")).result(10)


def test_a_sender_whose_pushes_all_park_is_told_to_wait_and_others_go_on(ledger: Ledger) -> None:
    intake = Intake(ledger, Staff(), FixedClock(NOON), quotas={"crm": Quota(entries=3)})
    for number in range(3):
        pushed(intake, number, amount="abc")
    with pytest.raises(QuotaError, match="HUB-E7014"):
        pushed(intake, 3, amount="abc")
    assert len(open_entries(ledger)) == 3
    pushed(intake, 4)
    pushed(intake, 5, instance="erp", amount="abc")
    assert [entry.instance for entry in open_entries(ledger)] == ["crm"] * 3 + ["erp"]


def test_what_a_person_has_settled_makes_room(ledger: Ledger) -> None:
    intake = Intake(ledger, Staff(), FixedClock(NOON), quotas={"crm": Quota(entries=1, again=0.0)})
    pushed(intake, 1, amount="abc")
    with pytest.raises(QuotaError):
        pushed(intake, 2, amount="abc")
    (entry,) = open_entries(ledger)
    ledger.writer.run(lambda conn: parked.settle(conn, entry.ref, "discarded", entry.parked_at))
    pushed(intake, 2, amount="abc")
    assert len(open_entries(ledger)) == 1


def test_bytes_are_bounded_as_entries_are(ledger: Ledger) -> None:
    intake = Intake(ledger, Staff(), FixedClock(NOON), quotas={"crm": Quota(bytes=10_000)})
    pushed(intake, 1, amount="abc", title="x" * 6000)
    with pytest.raises(QuotaError):
        pushed(intake, 2, amount="abc", title="x" * 6000)
    with ledger.reading() as conn:
        entries, size = count(conn, "crm")
    assert entries == 1 and 6000 < size < 7000


def test_it_is_counted_now_and_then_and_always_before_it_says_no(ledger: Ledger) -> None:
    now = [0.0]
    quotas = Quotas({"crm": Quota(entries=5)}, lambda: now[0])
    with ledger.reading() as conn:
        assert [quotas.allow(conn, "crm", 2, 10) for _ in range(4)] == [True] * 4, "none is really there"
    intake = Intake(ledger, Staff(), FixedClock(NOON))
    for number in range(6):
        pushed(intake, number, amount="abc")
    with ledger.reading() as conn:
        said = [quotas.allow(conn, "crm", 2, 10) for _ in range(3)]
        assert said[-1] is False
    ledger.writer.run(
        lambda conn: [parked.settle(conn, each.ref, "done", each.parked_at) for each in parked.open_entries(conn)]
    )
    with ledger.reading() as conn:
        assert quotas.allow(conn, "crm", 1, 10) is False, "for a moment it is not counted again"
        now[0] = 1.0
        assert quotas.allow(conn, "crm", 1, 10) is True
