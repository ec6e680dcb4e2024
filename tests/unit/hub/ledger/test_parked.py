"""Parked work in the ledger: attempts, corrections, groups and pages, the same on both databases."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert, text

from hub.ledger import parked
from hub.ledger.database import AnyRow
from hub.ledger.ledger import Ledger
from hub.ledger.parked_search import ParkedFilter, blocked_by, by_name, count, groups, page
from tests.events import AT

DEAL = "opportunity/crm/O-1"
LATER = "2026-11-21T02:00:00.000000Z"
MANY = 100_000


def row(ref: str, **more: Any) -> dict[str, Any]:
    return {
        "ref": ref, "kind": "event", "instance": None, "case_id": DEAL, "subject": DEAL, "code": "HUB-E3140",
        "seen": {"role": "chief"}, "place": "rules/won.yaml:7:30", "rule": "won", "body": b"{}", "parked_at": AT, **more,
    }  # fmt: skip


def park(ledger: Ledger, ref: str, **more: Any) -> AnyRow:
    ledger.writer.run(lambda conn: parked.park(conn, row(ref, **more)))
    return entry(ledger, ref)


def entry(ledger: Ledger, ref: str) -> AnyRow:
    with ledger.reading() as conn:
        found = parked.find(conn, ref)
    assert found is not None
    return found


def history(ledger: Ledger, ref: str) -> list[tuple[int, str, str]]:
    with ledger.reading() as conn:
        return [(one.number, one.at, one.code) for one in parked.earlier_attempts(conn, entry(ledger, ref).id)]


def test_a_failure_told_twice_is_one_attempt(ledger: Ledger) -> None:
    park(ledger, "event/e1", mark=5)
    assert park(ledger, "event/e1", mark=5).tries == 1
    assert park(ledger, "event/e1", mark=9, code="HUB-E6005", parked_at=LATER).tries == 2
    assert park(ledger, "event/e1", mark=5).tries == 2
    found = entry(ledger, "event/e1")
    assert (found.code, found.parked_at, found.tried_at) == ("HUB-E6005", AT, LATER)
    assert history(ledger, "event/e1") == [(1, AT, "HUB-E3140")]


def test_what_was_settled_and_fails_again_is_open_again(ledger: Ledger) -> None:
    park(ledger, "command/c1", kind="command")
    ledger.writer.run(lambda conn: parked.settle(conn, "command/c1", "done", AT))
    found = park(ledger, "command/c1", kind="command", parked_at=LATER)
    assert (found.state, found.tries, found.settled_at) == ("open", 2, None)


def test_a_settled_event_is_not_opened_by_the_echo_of_its_first_failure(ledger: Ledger) -> None:
    park(ledger, "event/e1", mark=5)
    ledger.writer.run(lambda conn: parked.settle(conn, "event/e1", "done", AT))
    assert park(ledger, "event/e1", mark=5).state == "done"


def test_a_push_that_comes_again_is_no_attempt_until_somebody_asks(ledger: Ledger) -> None:
    first = park(ledger, "delivery/crm/1", kind="delivery")
    assert park(ledger, "delivery/crm/1", kind="delivery").tries == 1
    ledger.writer.run(lambda conn: parked.request(conn, first.id, "retry"))
    assert park(ledger, "delivery/crm/1", kind="delivery").tries == 2


def test_the_same_correction_counts_once(ledger: Ledger) -> None:
    number = park(ledger, "event/e1").id
    done = [ledger.writer.run(partial(parked.correct, row=number, correction=body)) for body in (b"a", b"a", b"b")]
    assert done == [1, 0, 1]
    found = entry(ledger, "event/e1")
    assert (found.body, found.correction, found.edits) == (b"{}", b"b", 2)


def test_entries_of_one_cause_are_one_group(ledger: Ledger) -> None:
    for number in range(3):
        park(ledger, f"event/e{number}", parked_at=LATER if number else AT)
    park(ledger, "event/other", place="rules/lost.yaml:1:1")
    park(ledger, "delivery/crm/1", kind="delivery", rule=None, place=None, instance="crm")
    with ledger.reading() as conn:
        found = groups(conn, ParkedFilter())
        names = [[cause.name for cause in by_name(conn, group.cause.name[:6])] for group in found]
        of_code = by_name(conn, "HUB-E3140")
    assert [(group.cause.place, group.count) for group in found] == [
        ("rules/won.yaml:7:30", 3), ("rules/lost.yaml:1:1", 1), (None, 1),
    ]  # fmt: skip
    assert (found[0].oldest, found[0].newest, found[0].example) == (AT, LATER, entry(ledger, "event/e0").id)
    assert names == [[group.cause.name] for group in found]
    assert len(of_code) == 3


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ParkedFilter(), ["a", "b", "c"]),
        (ParkedFilter(kind="command"), ["b"]),
        (ParkedFilter(code="HUB-E4012"), ["b"]),
        (ParkedFilter(rule="won"), ["a", "c"]),
        (ParkedFilter(instance="pm"), ["b"]),
        (ParkedFilter(case="case/x/1"), ["c"]),
        (ParkedFilter(since=LATER), ["b", "c"]),
        (ParkedFilter(since=LATER, rule="won"), ["c"]),
        (ParkedFilter(state="done"), ["d"]),
        (ParkedFilter(state=None, rule="won"), ["a", "c", "d"]),
    ],
)
def test_entries_are_found_by_any_of_their_marks(ledger: Ledger, wanted: ParkedFilter, expected: list[str]) -> None:
    park(ledger, "a")
    park(ledger, "b", kind="command", code="HUB-E4012", rule="r2", instance="pm", place=None, parked_at=LATER)
    park(ledger, "c", case_id="case/x/1", parked_at=LATER)
    park(ledger, "d")
    ledger.writer.run(lambda conn: parked.settle(conn, "d", "done", AT))
    with ledger.reading() as conn:
        assert [found.ref for found in page(conn, wanted)] == expected
        assert count(conn, wanted) == len(expected)
        of_groups = [
            found.ref for group in groups(conn, wanted) for found in page(conn, replace(wanted, cause=group.cause))
        ]
    assert sorted(of_groups) == expected


def test_what_waits_behind_an_entry(ledger: Ledger) -> None:
    first = park(ledger, "event/e1")
    for number in (2, 3):
        park(ledger, f"event/e{number}", code="HUB-E6010")
    park(ledger, "event/elsewhere", case_id="case/x/2")
    with ledger.reading() as conn:
        number, rows = blocked_by(conn, first, limit=1)
    assert (number, [found.ref for found in rows]) == (2, ["event/e2"])


def test_pages_and_groups_of_very_many_touch_no_row(ledger: Ledger) -> None:
    rows = [
        row(f"event/{n}", case_id=f"case/x/{n // 4}", rule=f"r{n % 40}", code=f"HUB-E61{n % 7:02}") for n in range(MANY)
    ]
    ledger.writer.run(lambda conn: conn.execute(insert(parked.parked), [{**each, "state": "open"} for each in rows]))
    with ledger.reading() as conn:
        assert sum(group.count for group in groups(conn, ParkedFilter())) == MANY
        seen, after = 0, 0
        while found := page(conn, ParkedFilter(code="HUB-E6103"), after, limit=5000):
            seen, after = seen + len(found), found[-1].id
        assert seen == count(conn, ParkedFilter(code="HUB-E6103")) == sum(n % 7 == 3 for n in range(MANY))
        if conn.dialect.name == "sqlite":
            plan = "EXPLAIN QUERY PLAN SELECT kind, code, rule, place, instance, count(*), min(parked_at), min(id) FROM parked"
            told = conn.execute(text(f"{plan} WHERE state = 'open' GROUP BY kind, code, rule, place, instance")).all()
            assert "COVERING INDEX parked_cause" in str(told)
            told = conn.execute(text("EXPLAIN QUERY PLAN SELECT * FROM parked WHERE state = 'open' AND kind = 'delivery' "
                                     "AND asked IS NOT NULL ORDER BY id")).all()  # fmt: skip
            assert "parked_asked" in str(told)
