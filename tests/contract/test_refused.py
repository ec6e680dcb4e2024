"""What is kept and counted of refused pushes is bounded, and the same on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hub.ledger import refused
from hub.ledger.ledger import Ledger
from hub.ledger.refused import Count, Reason, Refusal, RefusedLimits

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SMALL = RefusedLimits(entries=5, bytes=40, head=10, age=timedelta(days=7), every=1)


def refusal(number: int, instance: str = "crm", at: datetime = NOON, body: bytes = b"{no json}") -> Refusal:
    name = f"delivery/{instance}/msg_{number}"
    return Refusal(instance, name, f"msg_{number}", "HUB-E3130", {"reason": "x"}, {"a": "b"}, body, at)


def keep(ledger: Ledger, *refusals: Refusal, bounds: RefusedLimits = SMALL) -> None:
    for each in refusals:
        ledger.writer.run(lambda conn, each=each: refused.store(conn, each, bounds))  # type: ignore[misc]


def kept(ledger: Ledger, instance: str | None = None) -> list[str]:
    with ledger.reading() as conn:
        return [row.delivery for row in refused.page(conn, instance)]


def counted(ledger: Ledger) -> list[Count]:
    with ledger.reading() as conn:
        return list(refused.counts(conn))


def test_a_refusal_is_kept_with_its_first_bytes_and_its_whole_size(ledger: Ledger) -> None:
    keep(ledger, refusal(1, body=b"0123456789abcdef"))
    with ledger.reading() as conn:
        (listed,) = refused.page(conn)
        entry = refused.get(conn, listed.id)
    assert entry is not None
    assert (entry.head, entry.size, entry.kept, entry.times) == (b"0123456789", 16, 10, 1)
    assert (entry.headers, entry.seen, entry.code) == ({"a": "b"}, {"reason": "x"}, "HUB-E3130")


def test_the_same_push_again_is_one_entry_with_its_newest_reason(ledger: Ledger) -> None:
    later = NOON + timedelta(minutes=5)
    keep(ledger, refusal(1), replace(refusal(1, at=later), code="HUB-E3131", seen={"key": "k"}))
    with ledger.reading() as conn:
        (entry,) = refused.page(conn)
    assert (entry.times, entry.code, entry.seen, entry.first_at < entry.last_at) == (2, "HUB-E3131", {"key": "k"}, True)
    assert [(each.code, each.times) for each in counted(ledger)] == [("HUB-E3130", 1), ("HUB-E3131", 1)]


def test_the_oldest_make_room_and_are_counted(ledger: Ledger) -> None:
    keep(ledger, refusal(0, "erp"), *(refusal(number) for number in range(9)))
    assert kept(ledger, "crm") == ["msg_8", "msg_7", "msg_6", "msg_5"], "9 bytes each, 40 allowed"
    assert kept(ledger, "erp") == ["msg_0"], "one instance takes nothing from another"
    assert counted(ledger)[0] == Count("crm", "HUB-E3130", True, 9, 5, "2026-11-20T12:00:00.000000Z")
    keep(ledger, *(refusal(number, body=b"") for number in range(10, 20)))
    assert kept(ledger, "crm") == [f"msg_{number}" for number in range(19, 14, -1)], "5 entries"


def test_what_is_old_is_forgotten_with_its_counts(ledger: Ledger) -> None:
    keep(ledger, refusal(1, at=NOON - timedelta(days=9)), refusal(2))
    ledger.writer.run(lambda conn: refused.forget(conn, NOON, SMALL))
    assert kept(ledger) == ["msg_2"]
    assert [each.times for each in counted(ledger)] == [1]


def test_unsigned_ones_are_only_counted(ledger: Ledger) -> None:
    forged, slow = Reason("crm", "HUB-E7008"), Reason("crm", "HUB-E7007")
    for times in (3, 4):
        ledger.writer.run(lambda conn, times=times: refused.count(conn, {forged: times, slow: 1}, NOON))  # type: ignore[misc]
    assert [(each.code, each.signed, each.times) for each in counted(ledger)] == [
        ("HUB-E7007", False, 2),
        ("HUB-E7008", False, 7),
    ]
    assert kept(ledger) == []
    with ledger.reading() as conn:
        assert list(refused.counts(conn, since=NOON + timedelta(days=1))) == []


def test_pages_go_back_in_time(ledger: Ledger) -> None:
    keep(ledger, *(refusal(number) for number in range(4)), bounds=refused.DEFAULT_LIMITS)
    with ledger.reading() as conn:
        first = refused.page(conn, limit=3)
        assert [row.delivery for row in first] == ["msg_3", "msg_2", "msg_1"]
        assert [row.delivery for row in refused.page(conn, before=first[-1].id)] == ["msg_0"]
