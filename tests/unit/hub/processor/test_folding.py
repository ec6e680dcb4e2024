"""Chunks over a partition's state: redelivery changes nothing, and a crash between any two sends loses nothing."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from hub.log.event_log import Outgoing, Record
from hub.processor.folding import Folding, fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState, offset_of, unpack
from tests.events import ProjectRules, event, record, won


def no_reread(_offsets: object) -> list[bytes]:
    raise AssertionError("nothing is parked")


def folded(state: PartitionState, records: list[Record]) -> Folding:
    chunk = Chunk(0, records, records[-1].offset + 1)
    return fold_chunk(chunk, state, ProjectRules(), no_reread)


def story(deals: int = 3) -> list[Record]:
    events = []
    for deal in range(deals):
        events += [won(f"O-{deal}"), event("crm.opportunity.changed", f"opportunity/crm/O-{deal}", version="8")]
    return [record(one, offset) for offset, one in enumerate(events)]


def commands(outputs: list[Outgoing]) -> list[str]:
    return [orjson.loads(o.value or b"")["id"] for o in outputs if o.topic == "hub.commands"]


def test_a_chunk_gives_its_outputs_and_one_state_a_case() -> None:
    done = folded(PartitionState(0), story())
    assert len(commands(done.outputs)) == 9
    assert sorted(o.key for o in done.states) == [
        b"opportunity/crm/O-0",
        b"opportunity/crm/O-1",
        b"opportunity/crm/O-2",
    ]
    assert [offset_of(o.value or b"") for o in done.states] == [1, 3, 5]


def test_of_what_fails_the_first_of_each_kind_is_told_for_the_log() -> None:
    bad = [
        Record("hub.events", 0, offset, b"opportunity/crm/O-%d" % offset, body)
        for offset, body in enumerate((b"{", b"", b"[]"))
    ]
    found = folded(PartitionState(0), [*bad, record(won("O-9"), 3)])
    assert found.failed == 3
    (told,) = [parked.fields() for parked in found.parked.values()]
    assert (told["code"], "hub parked" in told["fix"]) == ("HUB-E6001", True)


def test_a_chunk_redelivered_on_its_own_state_changes_nothing() -> None:
    state = PartitionState(0)
    folded(state, story())
    again = folded(state, story())
    assert (again.outputs, again.states, again.repeated) == ([], [], 6)


@given(cut=st.integers(0, 6), kept=st.lists(st.booleans(), min_size=3, max_size=3))
def test_after_a_crash_anywhere_the_commands_are_the_same(cut: int, kept: list[bool]) -> None:
    """Outputs went out; of the states, only some did; the chunk comes again, perhaps cut elsewhere."""
    records = story()
    first = folded(PartitionState(0), records)
    restored = PartitionState(0)
    restored.take(
        Record("hub.state", 0, n, o.key, o.value)
        for n, (o, there) in enumerate(zip(first.states, kept, strict=True))
        if there
    )
    again = [folded(restored, part) for part in (records[:cut], records[cut:]) if part]
    sent = commands(first.outputs)
    repeated = [id_ for done in again for id_ in commands(done.outputs)]
    assert set(repeated) <= set(sent)
    whole = PartitionState(0)
    folded(whole, records)
    assert as_in_topic(restored) == as_in_topic(whole)


def as_in_topic(state: PartitionState) -> dict[bytes, bytes]:
    return {key: unpack(raw) for key, raw in state.cases.items()}


def test_of_two_states_of_a_case_the_one_further_on_holds_whatever_the_order() -> None:
    state, ahead, behind = PartitionState(0), b'{"offset":9,"case":{"id":"a"}}', b'{"offset":4,"case":{"id":"b"}}'
    state.take([Record("hub.state", 0, 0, b"k", ahead), Record("hub.state", 0, 1, b"k", behind)])
    assert unpack(state.cases[b"k"]) == ahead
    assert state.read_to == 2


def test_a_tombstone_forgets_the_case() -> None:
    state = PartitionState(0)
    state.take([Record("hub.state", 0, 0, b"k", b'{"offset":9,"case":{}}'), Record("hub.state", 0, 1, b"k", None)])
    assert state.cases == {}
