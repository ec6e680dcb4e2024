"""JSON from outside is read strictly."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import RejectedError
from hub.rules.documents import MAX_BYTES, plain_decimal, read_json

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_holds_is_read_as_it_is(value: object) -> None:
    assert read_json(json.dumps(value).encode()).value == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()).value == value


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "HUB-E3130"),
        (b"{", "HUB-E3130"),
        (b"\xff{}", "HUB-E3130"),
        (b"{} {}", "HUB-E3130"),
        (b"[" * 200_000, "HUB-E3130"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "HUB-E3131"),
        (b"[NaN]", "HUB-E3132"),
        (b"[-Infinity]", "HUB-E3132"),
        (b"1e400", "HUB-E3132"),
        (b"9" * 5000, "HUB-E3132"),
        (rb'["\ud800"]', "HUB-E3133"),
        (rb'{"\ud800": 1}', "HUB-E3133"),
        (rb'["a\u0000b"]', "HUB-E3133"),
        (b"[" * 66 + b"]" * 66, "HUB-E3134"),
        (b" " * (MAX_BYTES + 1), "HUB-E3135"),
    ],
)
def test_what_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        read_json(raw)
    assert caught.value.code == code


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert read_json(rb'"\ud83d\ude00"').value == "😀"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**18), max_value=10**18))
def test_a_number_keeps_its_text(number: Decimal) -> None:
    text = format(number, "f")
    found = read_json(b'{"n": ' + text.encode() + b"}")
    assert found.numbers.get(("n",), repr(found.value["n"])) == text
    assert plain_decimal(text) == text
