"""The cases of a partition: packed while nobody touches them, and the same when they are read."""

from __future__ import annotations

import pytest

from hub.engine.case import Case, to_json
from hub.errors import FatalError
from hub.log.event_log import Record
from hub.log.memory_log import MemoryLog
from hub.processor.state import POSITION_KEY, PartitionState, catch_up, offset_of, pack, unpack
from schemas.topics import STATE


def case(number: int) -> Case:
    return Case(id=f"opportunity/crm/O-{number}", opened_by=f"opportunity/crm/O-{number}", sequence=number)


def key(number: int) -> bytes:
    return case(number).id.encode()


def record(number: int, value: bytes | None, at: int = 0) -> Record:
    return Record(STATE.name, 3, at, key(number), value)


@pytest.mark.parametrize("offset", [0, 1, 2**40])
def test_what_is_packed_keeps_its_offset_and_its_bytes(offset: int) -> None:
    raw = to_json(case(1), offset)
    packed = pack(raw)
    assert packed != raw
    assert offset_of(packed) == offset_of(raw) == offset
    assert unpack(packed) == unpack(raw) == raw
    assert pack(packed) == packed


MANY = 100


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for so many of these cases."""
    monkeypatch.setattr("hub.processor.state.MAX_UNPACKED_BYTES", MANY * len(to_json(case(10), 10)))


@pytest.mark.usefixtures("little_room")
def test_a_case_that_was_not_touched_lately_is_packed_and_still_there() -> None:
    state = PartitionState(3)
    for number in range(2 * MANY):
        state.keep(key(number), case(number), number)
    state.keep(key(2 * MANY), case(2 * MANY), 2 * MANY + 7)
    assert state.cases[key(0)] == pack(to_json(case(0), 0))
    assert state.cases[key(2 * MANY)] == to_json(case(2 * MANY), 2 * MANY + 7)
    assert all(state.get(key(number)) == case(number) for number in range(2 * MANY + 1))
    assert state.reflects(key(0)) == 0
    assert state.reflects(key(2 * MANY)) == 2 * MANY + 7


@pytest.mark.usefixtures("little_room")
def test_what_is_not_packed_is_bounded_by_its_bytes_however_often_and_large_cases_are_kept() -> None:
    state, room = PartitionState(3), MANY * len(to_json(case(10), 10))
    for number in range(10 * MANY):
        state.keep(key(number % 7 if number % 3 else number), case(number), number)
        assert sum(len(raw) for raw in state.cases.values() if raw != pack(raw)) <= room


@pytest.mark.usefixtures("little_room")
def test_a_case_that_is_gone_or_newer_in_the_topic_is_not_brought_back_by_packing() -> None:
    state = PartitionState(3)
    for number in range(MANY - 10):
        state.keep(key(number), case(number), 5)
    state.take([record(0, None), record(1, to_json(case(1), 9)), record(2, to_json(case(2), 4))])
    for number in range(MANY, 2 * MANY):
        state.keep(key(number), case(number), 6)
    assert state.cases[key(3)] == pack(to_json(case(3), 5))
    assert state.get(key(0)) is None
    assert [state.reflects(key(number)) for number in (0, 1, 2)] == [-1, 9, 5]


def test_state_that_cannot_be_read_stops_the_worker_by_name() -> None:
    state = PartitionState(3)
    for broken in (pack(to_json(case(1), 5))[:-4], b'{"offset":5,"case":{}}', pack(b'{"offset":5,"case":7}')):
        state.cases[key(1)] = broken
        with pytest.raises(FatalError) as raised:
            state.get(key(1))
        assert raised.value.code == "HUB-E6020"


@pytest.mark.parametrize("broken", [b"\xff\xfe", b"", b"7", b"{}", b'{"offset":"x"}', b'{"offset":-1,"case":{}}'])
def test_a_record_that_is_no_state_stops_the_worker_by_name_before_it_folds(broken: bytes) -> None:
    state = PartitionState(3)
    with pytest.raises(FatalError) as raised:
        state.take([record(0, to_json(case(0), 4)), record(1, broken)])
    assert raised.value.code == "HUB-E6020"
    assert raised.value.seen["key"] == key(1).decode()


def test_catching_up_reads_each_partition_from_where_it_was() -> None:
    log = MemoryLog()
    states = {partition: PartitionState(partition) for partition in (0, 1)}
    writer = log.writer()
    sent = [states[number % 2].keep(key(number), case(number), number)[0] for number in range(10)]
    writer.append(sent)
    fresh = {partition: PartitionState(partition) for partition in (0, 1)}
    assert catch_up(log, fresh) == 10
    assert {name: unpack(raw) for state in fresh.values() for name, raw in state.cases.items()} == {
        one.key: one.value for one in sent if one.key != POSITION_KEY
    }
    writer.append(states[1].keep(key(1), case(11), 12))
    assert catch_up(log, fresh) == 1
    assert fresh[1].get(key(1)) == case(11)
