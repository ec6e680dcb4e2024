from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.replay.audit.reading import IntegerRanges

SPANS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 8)), max_size=40)


@given(SPANS, st.integers(0, 80))
def test_runs_are_the_set_that_they_stand_for(spans: list[tuple[int, int]], last: int) -> None:
    runs, plain = IntegerRanges(), set[int]()
    for start, more in spans:
        runs.add(start, start + more)
        plain |= set(range(start, start + more + 1))
    assert [n for start, end in runs.missing(last) for n in range(start, end + 1)] == sorted(
        set(range(1, last + 1)) - plain
    )
    assert runs.largest == max(plain, default=0)
    assert all(end + 1 < start for end, start in zip(runs.ends, runs.starts[1:], strict=False))


def test_what_comes_in_order_is_one_run() -> None:
    runs = IntegerRanges()
    for number in range(1, 1000):
        runs.add(number)
    assert (runs.starts, runs.ends) == ([1], [999])
    assert list(runs.missing(10**18)) == [(1000, 10**18)]


def test_nothing_is_added_by_an_end_before_its_start() -> None:
    runs = IntegerRanges()
    runs.add(5, 3)
    assert runs.largest == 0
