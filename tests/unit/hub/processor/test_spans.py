"""Where a case's records lie: in the stretches, whatever the offsets; few enough, and in few bytes."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from hub.processor.case_expiry import (
    MAX_CASE_RECORDS,
    MAX_GAP_RECORDS,
    MAX_STRETCHES,
    decode_spans,
    encode_spans,
    merge_stretches,
    record_count,
    stretches,
    with_offsets,
)

offsets = st.lists(st.integers(1, 400), max_size=120).map(lambda gaps: list(accumulate(gaps)))


@given(offsets, st.integers(1, 9))
def test_every_record_lies_in_a_stretch(found: list[int], size: int) -> None:
    spans: tuple[int, ...] | None = ()
    for at in range(0, len(found), size):
        spans = with_offsets(spans, found[at : at + size])
    if spans is None:
        assert found[-1] - found[0] >= MAX_CASE_RECORDS
        return
    within = list(stretches(spans))
    assert all(any(first <= offset <= last for first, last in within) for offset in found)
    assert len(within) <= MAX_STRETCHES
    assert record_count(spans) == sum(last - first + 1 for first, last in within)
    assert decode_spans(encode_spans(spans)) == spans
    assert not found or (within[0][0], within[-1][1]) == (found[0], found[-1])


def test_neighbours_are_one_stretch_and_the_smallest_gaps_are_closed_first() -> None:
    assert with_offsets((), [5, 6, 5 + MAX_GAP_RECORDS]) == (5, MAX_GAP_RECORDS)
    far = [1000 * n for n in range(MAX_STRETCHES)]
    spans = with_offsets((), [*far, far[-1] + 500])
    assert spans is not None
    assert list(stretches(spans))[-1] == (far[-1], far[-1] + 500)


def test_what_would_be_too_much_to_read_again_is_not_known_any_more() -> None:
    assert with_offsets((), range(MAX_CASE_RECORDS)) is not None
    assert with_offsets((), range(MAX_CASE_RECORDS + 1)) is None
    assert with_offsets(None, [1]) is None


def test_stretches_of_several_cases_are_read_together_where_they_lie_near() -> None:
    assert merge_stretches([(10, 0, 90, 0), (12, 3)], near=5) == [(10, 15), (100, 100)]
