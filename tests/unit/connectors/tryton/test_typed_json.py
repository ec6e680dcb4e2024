from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tryton import client

VALUES = st.one_of(
    st.datetimes(),
    st.dates(),
    st.times(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.binary(),
    st.text(),
    st.integers(),
    st.booleans(),
    st.none(),
)


@given(st.recursive(VALUES, lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner)))
def test_whatever_is_written_is_read_back(value: object) -> None:
    if not holds_class(value):
        assert client.loads(client.dumps(value)) == value


def holds_class(value: object) -> bool:
    """A plain object with a key `__class__` is one that Tryton could not tell from a typed one either."""
    if isinstance(value, dict):
        return "__class__" in value or any(map(holds_class, value.values()))
    return isinstance(value, list) and any(map(holds_class, value))


def test_values_have_the_form_that_tryton_gives_them() -> None:
    written = client.dumps(
        [
            datetime.fromisoformat("2026-11-22T04:57:43.917537"),
            date(2026, 12, 1),
            time(9, 30),
            timedelta(hours=8),
            Decimal("12000.00"),
            b"x",
        ]
    )
    assert json.loads(written) == [
        {
            "__class__": "datetime",
            "year": 2026,
            "month": 11,
            "day": 22,
            "hour": 4,
            "minute": 57,
            "second": 43,
            "microsecond": 917537,
        },
        {"__class__": "date", "year": 2026, "month": 12, "day": 1},
        {"__class__": "time", "hour": 9, "minute": 30, "second": 0, "microsecond": 0},
        {"__class__": "timedelta", "seconds": 28800.0},
        {"__class__": "Decimal", "decimal": "12000.00"},
        {"__class__": "bytes", "base64": "eA=="},
    ]


def test_an_amount_keeps_its_digits() -> None:
    assert str(client.loads(b'{"__class__":"Decimal","decimal":"98765432.10"}')) == "98765432.10"


def test_a_class_that_is_not_known_stays_an_object() -> None:
    assert client.loads(b'{"__class__":"color","name":"red"}') == {"__class__": "color", "name": "red"}


@pytest.mark.parametrize(
    "raw",
    [b"<html>", b'{"__class__":"date","year":2026}', b'{"__class__":"Decimal","decimal":"x"}', b"\xff"],
)
def test_what_cannot_be_read_is_a_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        client.loads(raw)


def test_a_time_with_a_zone_is_refused() -> None:
    with pytest.raises(TypeError, match="zone"):
        client.dumps(datetime(2026, 1, 1, tzinfo=UTC))
