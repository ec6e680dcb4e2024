"""CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import io

import pytest

from hub.web.boards import cell, to_csv


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x")'])
def test_a_formula_is_made_a_text(text: str) -> None:
    assert cell(text) == f"'{text}"


@pytest.mark.parametrize(
    ("value", "text"), [("-12.50", "-12.50"), (None, ""), (True, "true"), ({"甲": 1}, '{"甲": 1}'), ("甲", "甲")]
)
def test_other_values_stay_as_they_are(value: object, text: str) -> None:
    assert cell(value) == text


def test_it_reads_back() -> None:
    told = to_csv([{"a": 'x,"y"\n', "b": "=1"}], ("a", "b"))
    assert told.startswith("\N{ZERO WIDTH NO-BREAK SPACE}")
    assert list(csv.reader(io.StringIO(told[1:]))) == [["a", "b"], ['x,"y"\n', "'=1"]]
