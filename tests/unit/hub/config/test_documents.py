"""JSON from outside is read strictly."""

from __future__ import annotations

import json
import time
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.config.strict_json import MAX_BYTES, has_few_values, plain_decimal, read_json
from hub.errors import RejectedError

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
        (b"[" * 40_000, "HUB-E3130"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "HUB-E3131"),
        (b"[NaN]", "HUB-E3132"),
        (b"[-Infinity]", "HUB-E3132"),
        (b"1e400", "HUB-E3132"),
        (b"9" * 5000, "HUB-E3132"),
        (rb'{"\ud800": 1, "\udfff": 2}', "HUB-E3131"),
        (rb'{"\ud800": 1, "\ud800": 2}', "HUB-E3131"),
        (b"[" + b"1," * 50_000 + b"1]", "HUB-E3136"),
        (b'{"a": [' + b'"",' * 49_999 + b'""]}', "HUB-E3136"),
        (b"[" + b"[1]," * 30_000 + b"1]", "HUB-E3136"),
        (b"\xef\xbb\xbf" * 2 + b"{}", "HUB-E3130"),
        ('{"客户": "华为"}'.encode("gbk"), "HUB-E3130"),
        (b"[" * 66 + b"]" * 66, "HUB-E3134"),
        (b" " * (MAX_BYTES + 1), "HUB-E3135"),
    ],
)
def test_what_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(RejectedError) as caught:
        read_json(raw)
    assert caught.value.code == code


@pytest.mark.parametrize("text", [r"\ud83d", r"\ude00", r"\ude00\ud83d", r"\u0000"])
def test_what_cannot_go_everywhere_is_marked_and_the_rest_is_read(text: str) -> None:
    found = read_json(b'{"remark %s": "cut here %s", "n": 1.50}' % (text.encode(), text.encode()))
    assert found.broken
    marks = "\ufffd" * text.count("u")
    assert found.value == {f"remark {marks}": f"cut here {marks}", "n": 1.5}
    assert found.numbers == {("n",): "1.50"}
    assert not read_json(rb'"\ufffd \ud83d\ude00"').broken


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read_json(b"\xef\xbb\xbf" + b' {"a": "\xef\xbb\xbf"}').value == {"a": "\ufeff"}


@given(JSON)
def test_values_are_counted_without_parsing(value: object) -> None:
    number = _values(value)
    for raw in (json.dumps(value).encode(), json.dumps(value, ensure_ascii=False, indent=1).encode()):
        assert has_few_values(raw, number + _empty(value))
        assert not has_few_values(raw, number - 1)


def _values(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values, inner))


def _empty(value: object) -> int:
    """Lists and maps with nothing in them: each counts for one value more than it has."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return int(isinstance(value, dict | list) and not value) + sum(map(_empty, inner))


@given(st.text('"\\\\,[{a', max_size=60))
def test_whatever_is_sent_is_counted_in_one_go(text: str) -> None:
    assert has_few_values(text.encode(), len(text) + 1)


@pytest.mark.parametrize(
    "odd", [b'"' * 999_999, b'\\"' * 500_000, b'"\\' * 500_000, b'","' * 340_000, b"[" * MAX_BYTES]
)
def test_counting_is_quick_for_any_bytes(odd: bytes) -> None:
    began = time.process_time()
    has_few_values(odd, 50_000)
    assert time.process_time() - began < 2.0, "a look at each byte, not one per pair of bytes"


def test_a_whole_pair_of_surrogates_is_a_character() -> None:
    assert read_json(rb'"\ud83d\ude00"').value == "😀"


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**18), max_value=10**18))
def test_a_number_keeps_its_text(number: Decimal) -> None:
    text = format(number, "f")
    found = read_json(b'{"n": ' + text.encode() + b"}")
    assert found.numbers.get(("n",), repr(found.value["n"])) == text
    assert plain_decimal(text) == text
