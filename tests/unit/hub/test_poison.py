"""Whatever bytes lie in the log, folding them raises nothing: what is no event is parked, in a record that the log takes."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from hub.event_log import LARGEST, Record
from hub.outputs import Parked
from hub.parking import Folded, fold
from schemas.event import MAX_BYTES, is_reference
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
    assert [type(output) for output in done.outputs] == [Parked]
    assert (done.case is None) == (key is None or not is_reference(key.decode(errors="replace")))


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@given(field=st.sampled_from(sorted(SOUND)), wrong=anything.filter(_is_json))
def test_an_event_with_any_field_spoiled_is_folded_or_parked(field: str, wrong: Any) -> None:
    done = folded(orjson.dumps({**SOUND, field: wrong}))
    assert done.case is not None
    assert [output.record() for output in done.outputs]


def test_what_is_too_large_is_parked_by_its_beginning() -> None:
    done = folded(won().to_json() + b" " * (LARGEST - 1000))
    parked = done.outputs[0]
    assert isinstance(parked, Parked)
    assert parked.code == "HUB-E6003"
    assert len(parked.body) == 2 * MAX_BYTES
    record = parked.record()
    assert len(record.value or b"") < LARGEST


def test_deep_nesting_is_parked() -> None:
    deep = won().to_json()[:-1] + b',"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert folded(deep).failed
