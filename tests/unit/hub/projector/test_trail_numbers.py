"""What the trail keeps of names."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.projector.trail import bare, of_id, of_name, starting

uuids = st.uuids().map(str)


@given(one=uuids, other=uuids)
def test_numbers_have_the_order_of_ids_by_their_first_digits(one: str, other: str) -> None:
    first, second = one[:13], other[:13]
    assert (of_id(one) < of_id(other)) == (first < second)
    assert -(2**47) <= of_id(one) < 2**47


@given(id_=uuids, length=st.integers(1, 36))
def test_an_id_lies_among_those_that_start_as_it_does(id_: str, length: int) -> None:
    span = starting(id_[:length])
    assert span is not None
    assert span[0] <= of_id(id_) <= span[1]


@pytest.mark.parametrize("start", ["", "x", "T-77", "ABCDEF", "abcdef0-", "abcdef012", "1_0", " 12"])
def test_what_no_id_starts_with_has_no_numbers(start: str) -> None:
    assert starting(start) is None


def test_other_ids_are_numbered_by_all_of_their_characters() -> None:
    odd = [str(uuid.UUID(int=7)).upper().replace("0", "A"), "e1", "e2", "", "\ud800"]
    assert [of_id(each) for each in odd] == [of_name(each) for each in odd]
    assert len({of_id(each) for each in odd}) == len(odd)


def test_a_bare_id_is_what_follows_the_last_stroke_in_any_case_of_letters() -> None:
    assert bare("task/pm/T-77") == bare("t-77") == "t-77"
