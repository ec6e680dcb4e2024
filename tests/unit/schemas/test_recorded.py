"""The short way to read an event accepts nothing that `Event` would refuse, and says nothing else of it."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.decoding import read
from schemas.envelope import Event
from tests.events import won

FULL = won(
    causationid="c", sequence="3", outbox="o", actor="person/li.lei", origin="x", traceparent="t", clears=["due"]
).model_dump()  # with claimedtime null
AWKWARD: list[Any] = [
    None, True, 0, -0.0, 2**63, 2**70, 1e300, [], {}, {"a": [None, {"b": 1.5}]}, ["a", "b"], [""], [None],
    "", " ", "x", "x" * 400, "x" * 401, "a/b", "a/b\n", "a/b/c", "a/b/ ", "a/ b", "a/b\x1c", "A/b", "person/", "\u2028",
    "opportunity/crm/O-1", "crm.opportunity.won", "crm.opportunity", "crm.a.b\n", "\n".join(["a/b"] * 3),
    "2026-11-20T02:00:00.000000Z", "2026-11-20T02:00:00.000000Z\n", "2026-11-20T02:00:00Z",
    "٣" * 3, "3", "3\n", "9" * 20, "1.0", "1.1", "application/json",
]  # fmt: skip
values = st.sampled_from(AWKWARD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def outcome(reader: Any, raw: bytes) -> Any:
    """What a reader makes of it: attributes by name, or None when it refuses."""
    try:
        found = reader(raw)
    except ValidationError:
        return None
    return repr({name: getattr(found, name) for name in Event.model_fields})


@settings(max_examples=600)
@given(
    st.dictionaries(st.sampled_from([*sorted(FULL), "unknown"]), values, max_size=3),
    st.sets(st.sampled_from(sorted(FULL)), max_size=2),
)
def test_both_ways_say_the_same_of_every_envelope(other: dict[str, Any], without: set[str]) -> None:
    told = {name: value for name, value in {**FULL, **other}.items() if name not in without}
    try:
        raw = orjson.dumps(told)
    except TypeError:  # an integer that it cannot write
        raw = json.dumps(told).encode("utf-8", "surrogatepass")
    assert outcome(read, raw) == outcome(Event.from_json, raw)


@pytest.mark.parametrize("name", sorted(FULL))
@pytest.mark.parametrize("value", AWKWARD, ids=range(len(AWKWARD)))
def test_both_ways_say_the_same_of_every_awkward_field(name: str, value: Any) -> None:
    raw = json.dumps({**FULL, name: value}).encode()
    assert outcome(read, raw) == outcome(Event.from_json, raw)


@pytest.mark.parametrize("cut", [26, 28])
def test_one_time_does_not_make_good_what_the_other_lacks(cut: int) -> None:
    both = "2026-11-20T02:00:00.000000Z" * 2
    raw = json.dumps({**FULL, "time": both[:cut], "recordedtime": both[cut:]}).encode()
    assert outcome(Event.from_json, raw) is None
    assert outcome(read, raw) is None


@settings(max_examples=400)
@given(at=st.integers(0, 700), byte=st.integers(0, 255), cut=st.integers(0, 700) | st.none())
def test_both_ways_say_the_same_of_damaged_bytes(at: int, byte: int, cut: int | None) -> None:
    raw = won(sequence="3", outbox="o").to_json()[:cut]
    damaged = raw[:at] + bytes([byte]) + raw[at + 1 :]
    assert outcome(read, damaged) == outcome(Event.from_json, damaged)


@pytest.mark.parametrize(
    "data",
    [
        *(b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e400}', b'{"a":-0}', b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b'{"a":"\\u0000"}'),
        *(b'{"a":12345678901234567890123}', b'{"a":0.1}', b'{"a":1E5}', b'{"a":01}', b'{"a":"\xff"}', b"null", b"[]", b'"x"'),
        *(b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (50, 150, 300, 5000)),
        b'{"a":1}}',
        b'{"a":1} ',
        b'{"a":1},"unknown":"\xff"',
        b'{"a":1},"unknown":[1,2]',
    ],
)  # fmt: skip
def test_both_ways_say_the_same_of_odd_data(data: bytes) -> None:
    raw = won(data={}).to_json().replace(b'"data":{}', b'"data":' + data)
    assert raw.count(data)
    assert outcome(read, raw) == outcome(Event.from_json, raw)


def test_what_was_read_is_the_event() -> None:
    made = won(sequence="3", outbox="o")
    found = read(made.to_json())
    assert found.as_event() == made
    assert (found.case, found.kind, found.version) == (made.case, made.kind, made.version)
    assert found.as_event().model_copy(update={"id": "y"}).to_json() == made.model_copy(update={"id": "y"}).to_json()
