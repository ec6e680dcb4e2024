"""Whatever bytes lie in the log, folding them raises nothing: what is no event is parked, in a record that the log takes."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.engine.case import from_json, to_json
from hub.engine.parking import Folded, fold
from hub.engine.step import ParkedEvent
from hub.log.event_log import MAX_RECORD_BYTES, Record
from schemas.envelope import MAX_BYTES, is_reference
from tests.events import ProjectRules, won

SOUND = orjson.loads(won().to_json())
KEY = won().case.encode()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def folded(value: bytes | None, key: bytes | None = KEY) -> Folded:
    return fold(None, Record("hub.events", 0, 5, key, value), ProjectRules(), lambda offsets: [])


@given(value=st.binary(max_size=200) | st.none(), key=st.binary(max_size=40) | st.none())
def test_bytes_that_are_no_event_are_parked(value: bytes | None, key: bytes | None) -> None:
    done = folded(value, key)
    assert done.failed
    assert [type(output) for output in done.outputs] == [ParkedEvent]
    assert (done.case is None) == (key is None or not _names_a_case(key))


def _names_a_case(key: bytes) -> bool:
    try:
        return is_reference(key.decode())
    except UnicodeDecodeError:
        return False


@given(field=st.sampled_from(sorted(SOUND)), wrong=anything)
def test_an_event_with_any_field_spoiled_is_folded_or_parked(field: str, wrong: Any) -> None:
    done = folded(json.dumps({**SOUND, field: wrong}).encode())
    assert done.case is not None
    assert [output.record() for output in done.outputs]
    assert from_json(to_json(done.case, 5))[1] == 5


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**70), 10**400])
def test_a_number_of_any_size_is_folded_and_kept(number: int) -> None:
    done = folded(json.dumps({**SOUND, "data": {**SOUND["data"], "n": number}}).encode())
    assert done.case is not None
    assert all(output.record() for output in done.outputs)
    kept, _ = from_json(to_json(done.case, 5))
    assert kept.entities[SOUND["subject"]].data["n"] == number


def test_what_is_too_large_is_parked_by_its_beginning() -> None:
    done = folded(won().to_json() + b" " * (MAX_RECORD_BYTES - 1000))
    parked = done.outputs[0]
    assert isinstance(parked, ParkedEvent)
    assert parked.code == "HUB-E6003"
    assert len(parked.body) == 2 * MAX_BYTES
    record = parked.record()
    assert len(record.value or b"") < MAX_RECORD_BYTES


def test_deep_nesting_is_parked() -> None:
    deep = won().to_json()[:-1] + b',"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert folded(deep).failed
