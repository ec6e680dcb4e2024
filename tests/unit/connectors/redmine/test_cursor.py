"""The cursor as text, and where reading goes on after a page."""

from __future__ import annotations

from connectors.redmine.source import COMMIT_DELAY_S, IssueCursor, KnownIssue

NINE = "2026-01-05T09:00:00Z"
NOW = "2026-01-06T00:00:00Z"


def row(id_: int, changed: str) -> dict[str, object]:
    return {"id": id_, "updated_on": changed}


def test_the_same_cursor_writes_the_same_text_and_reads_it_back() -> None:
    cursor = IssueCursor(NINE, NINE, NINE, 4, {7: KnownIssue(NINE, 12, 3.5), 2: KnownIssue(NINE, 0, None)})
    again = IssueCursor(NINE, NINE, NINE, 4, {2: KnownIssue(NINE, 0, None), 7: KnownIssue(NINE, 12, 3.5)})
    assert cursor.text() == again.text()
    assert IssueCursor.from_text(cursor.text()) == cursor


def test_caught_up_it_goes_back_a_window_and_tells_from_there() -> None:
    after = IssueCursor.start(NINE).advance([row(1, "2026-01-05T09:10:00Z")], {}, full=False, window=60, now=NOW)
    assert (after.since, after.floor, after.after) == ("2026-01-05T09:09:00Z", "2026-01-05T09:09:00Z", None)


def test_the_floor_never_goes_back() -> None:
    after = IssueCursor.start(NINE).advance([row(1, "2026-01-05T09:00:10Z")], {}, full=False, window=60, now=NOW)
    assert (after.since, after.floor) == ("2026-01-05T08:59:10Z", NINE)


def test_a_time_that_our_clock_has_not_reached_moves_nothing() -> None:
    known = {1: KnownIssue("2026-01-05T11:00:00Z", 1, None)}
    listed = [row(2, "2026-01-05T09:30:00Z"), row(1, "2026-01-05T11:00:00Z")]
    after = IssueCursor.start(NINE).advance(listed, known, full=False, window=60, now="2026-01-05T10:00:00Z")
    assert (after.since, after.floor, after.known) == ("2026-01-05T09:29:00Z", "2026-01-05T09:29:00Z", known)
    alone = IssueCursor.start(NINE).advance(listed[1:], known, full=False, window=60, now="2026-01-05T10:00:00Z")
    assert (alone.since, alone.floor, alone.known) == (NINE, NINE, known)


def test_nothing_new_moves_nothing() -> None:
    cursor = IssueCursor.start(NINE)
    assert cursor.advance([], {}, full=False, window=60, now=NOW) == cursor


def test_while_catching_up_the_floor_stands_still() -> None:
    after = IssueCursor.start(NINE).advance(
        [row(1, NINE), row(2, "2026-01-05T11:00:00Z")], {}, full=True, window=60, now=NOW
    )
    assert (after.since, after.floor) == ("2026-01-05T11:00:00Z", NINE)


def test_a_page_of_a_single_second_is_gone_through_by_id() -> None:
    full = IssueCursor.start(NINE).advance([row(8, NINE), row(9, NINE)], {}, full=True, window=60, now=NOW)
    assert (full.since, full.after) == (NINE, 0)
    more = full.advance([row(3, NINE), row(5, NINE)], {}, full=True, window=60, now=NOW)
    assert (more.since, more.after) == (NINE, 5)
    done = more.advance([row(8, NINE)], {}, full=False, window=60, now=NOW)
    assert (done.since, done.after, done.floor) == ("2026-01-05T09:00:01Z", None, NINE)


def test_what_lies_before_the_window_is_forgotten() -> None:
    known = {1: KnownIssue("2026-01-05T08:58:59Z", 1, None), 2: KnownIssue("2026-01-05T08:59:00Z", 2, None)}
    after = IssueCursor.start(NINE).advance([row(3, NINE)], known, full=False, window=60, now=NOW)
    assert set(after.known) == {2}


def test_an_issue_is_settled_once_it_was_looked_into_long_enough_after_its_last_change() -> None:
    first = KnownIssue.read(NINE, 3, 1000.0, None)
    early = KnownIssue.read(NINE, 3, 1000.0 + COMMIT_DELAY_S - 1, first)
    late = KnownIssue.read(NINE, 4, 1000.0 + COMMIT_DELAY_S, early)
    assert (first.open_since, early.open_since, late.open_since) == (1000.0, 1000.0, None)
    assert KnownIssue.read("2026-01-05T09:00:05Z", 5, 1020.0, late).open_since == 1020.0
    cursor = IssueCursor.start(NINE, {1: early, 2: late})
    assert [cursor.settled(id_, NINE) for id_ in (1, 2, 3)] == [False, True, False]
    assert not cursor.settled(2, "2026-01-05T09:00:01Z")
    assert cursor.settled(3, "2026-01-05T08:59:59Z"), "nothing of it is told"


def test_what_is_told_of_an_issue_is_counted_by_its_journal_once_it_is_known() -> None:
    cursor = IssueCursor.start(NINE, {1: KnownIssue(NINE, 12, None)})
    assert cursor.journal_start(1) == ("", 12)
    assert cursor.journal_start(2) == (NINE, -1)


def test_a_run_of_pages_ends_with_the_window_before_its_beginning() -> None:
    """A change that is committed late may lie behind a page that was listed before."""
    run = IssueCursor(NINE, NINE, run="2026-01-05T09:30:00Z", after=9)
    by_id = run.advance([], {}, full=False, window=60, now=NOW)
    assert (by_id.since, by_id.after, by_id.run) == ("2026-01-05T09:00:01Z", None, run.run)
    ended = by_id.advance([row(1, "2026-01-05T11:00:00Z")], {}, full=False, window=60, now=NOW)
    assert (ended.since, ended.floor, ended.run) == ("2026-01-05T09:29:00Z", "2026-01-05T09:29:00Z", None)
