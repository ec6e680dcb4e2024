from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.tryton.source import MAX_DONE_WORKS, StreamCursor

WINDOW = 100
NOW = 10**17
STAMPS = st.integers(min_value=0, max_value=10**16)
CURSORS = st.builds(
    StreamCursor,
    start=STAMPS,
    floor=STAMPS,
    at=st.none() | st.tuples(STAMPS, st.integers(1, 10**6)),
    emitted=st.dictionaries(st.integers(1, 10**6), st.frozensets(STAMPS, min_size=1), max_size=5),
    done=st.lists(st.integers(1, 10**6), unique=True, max_size=5).map(tuple),
)


@given(CURSORS)
def test_a_cursor_survives_the_ledger(cursor: StreamCursor) -> None:
    assert StreamCursor.from_text(cursor.text()) == cursor
    assert StreamCursor.from_text(cursor.text()).text() == cursor.text()


def told(**revisions: list[int]) -> dict[int, frozenset[int]]:
    return {int(id_[1:]): frozenset(stamps) for id_, stamps in revisions.items()}


def test_what_was_before_the_connection_is_never_told() -> None:
    cursor = StreamCursor(start=1000, floor=1000)
    assert cursor.pending(1, [900, 1000, 1001], WINDOW) == [1001]
    assert cursor.after(WINDOW) == (1001, 0)


def test_a_late_commit_within_the_window_is_told_and_what_was_told_is_not() -> None:
    cursor = StreamCursor().advance((1000, 1), told(o1=[950, 1000]), more=False, window=WINDOW, now=NOW)
    assert cursor.after(WINDOW) == (900, 0)
    assert cursor.pending(1, [899, 950, 1000, 1050], WINDOW) == [1050]
    assert cursor.pending(2, [899, 950], WINDOW) == [950]


def test_while_catching_up_older_revisions_of_later_records_are_still_told() -> None:
    """Records come by their last change: one that changed last has revisions older than all that was read before it."""
    cursor = StreamCursor(floor=500)
    cursor = cursor.advance((2000, 1), told(o1=[2000]), more=True, window=WINDOW, now=NOW)
    assert cursor.after(WINDOW) == (2000, 1)
    assert cursor.pending(2, [450, 600, 3000], WINDOW) == [450, 600, 3000]
    cursor = cursor.advance((3000, 2), told(o2=[600, 3000]), more=False, window=WINDOW, now=NOW)
    assert (cursor.floor, cursor.at) == (3000, None)


def test_an_idle_poll_leaves_the_cursor_as_it_is() -> None:
    cursor = StreamCursor().advance((1000, 1), told(o1=[950, 1000]), more=False, window=WINDOW, now=NOW)
    assert cursor.advance(None, {}, more=False, window=WINDOW, now=NOW) == cursor


def test_catching_up_ends_where_it_stood_when_nothing_more_is_there() -> None:
    cursor = StreamCursor(floor=500, at=(2000, 1))
    ended = cursor.advance(None, {}, more=False, window=WINDOW, now=NOW)
    assert (ended.floor, ended.at) == (2000, None)


def test_a_time_that_our_clock_has_not_reached_moves_nothing() -> None:
    cursor = StreamCursor(floor=900).advance((9000, 1), told(o1=[9000], o2=[1000]), more=False, window=WINDOW, now=2000)
    assert (cursor.floor, cursor.emitted) == (1000, told(o1=[9000], o2=[1000]))
    assert cursor.pending(3, [1500], WINDOW) == [1500]
    assert cursor.pending(1, [9000], WINDOW) == []
    alone = StreamCursor(floor=900).advance((9000, 1), told(o1=[9000]), more=False, window=WINDOW, now=2000)
    assert (alone.floor, alone.emitted) == (900, told(o1=[9000]))


def test_catching_up_may_go_ahead_and_ends_by_our_clock() -> None:
    cursor = StreamCursor(floor=500).advance((9000, 1), told(o1=[1000], o2=[9000]), more=True, window=WINDOW, now=2000)
    assert (cursor.after(WINDOW), cursor.floor) == ((9000, 1), 500)
    ended = cursor.advance((9500, 2), told(o3=[9500]), more=False, window=WINDOW, now=2000)
    assert (ended.at, ended.floor) == (None, 500)
    assert ended.pending(4, [600], WINDOW) == [600]


def test_a_cursor_that_an_older_hub_left_ahead_comes_back() -> None:
    assert StreamCursor(start=9000, floor=9000).bounded(2000) == StreamCursor(start=2000, floor=2000)
    assert StreamCursor(start=10, floor=900).bounded(2000) == StreamCursor(start=10, floor=900)


def test_only_the_window_is_remembered() -> None:
    cursor = StreamCursor().advance((1000, 1), told(o1=[1000], o2=[899]), more=False, window=WINDOW, now=NOW)
    assert cursor.emitted == told(o1=[1000])
    later = cursor.advance((5000, 3), told(o3=[5000]), more=False, window=WINDOW, now=NOW)
    assert later.emitted == told(o3=[5000])


def test_a_record_that_is_late_does_not_move_the_floor_back() -> None:
    cursor = StreamCursor().advance((1000, 1), told(o1=[1000]), more=False, window=WINDOW, now=NOW)
    late = cursor.advance((950, 2), told(o2=[950]), more=False, window=WINDOW, now=NOW)
    assert late.floor == 1000
    assert late.pending(2, [950], WINDOW) == []
    assert late.pending(1, [1000], WINDOW) == []


def test_the_latest_done_works_are_known() -> None:
    cursor = StreamCursor().with_done(range(MAX_DONE_WORKS + 10), ())
    assert len(cursor.done) == MAX_DONE_WORKS
    assert cursor.done[0] == 10
    again = cursor.with_done([10], [20, 21])
    assert again.done[-1] == 10
    assert not {20, 21} & set(again.done)
