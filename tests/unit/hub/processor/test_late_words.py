"""Whatever a worker that slept still says of a case, the owner's word stands last in the topic, and outlives compaction."""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from hub.engine.case import Case, Entity, to_json
from hub.log.event_log import Outgoing, read_to_end
from hub.log.memory_log import MemoryLog
from hub.log.sequences import ReadPosition
from hub.processor.stale_writes import StaleWrites
from hub.processor.state import POSITION_KEY, PartitionState, catch_up, stored_offset
from schemas.topics import STATE, VIEWS

PARTITION = 3


def case(number: int, folded: int) -> Case:
    ref = f"opportunity/crm/O-{number}"
    entity = Entity(ref=ref, data={"name": f"after {folded}"}, version=str(folded))
    return Case(id=ref, opened_by=ref, entities={ref: entity}, recent=(f"event-{folded}",))


def key(number: int) -> bytes:
    return case(number, 0).id.encode()


@dataclass
class Owner:
    """A worker that has the partition, and the topic that another writes to as well."""

    log: MemoryLog = field(default_factory=MemoryLog)
    state: PartitionState = field(default_factory=lambda: PartitionState(PARTITION))
    words: StaleWrites = field(init=False)
    sent: list[Outgoing] = field(default_factory=list)
    """Folded, and not in the topic yet."""
    folded: int = 0
    past: dict[int, list[int]] = field(default_factory=dict)
    """Case → the offsets of its events, the last one first."""

    def __post_init__(self) -> None:
        self.words = StaleWrites(self.state, 0, {})

    def fold(self, number: int) -> None:
        self.folded += 1
        self.past.setdefault(number, []).insert(0, self.folded)
        self.sent += self.state.keep(key(number), case(number, self.folded), self.folded)
        self.sent += self.state.keep_place(ReadPosition(self.folded + 1, {"o1": self.folded}))

    def deliver(self) -> None:
        self.log.writer().append(self.sent)
        self.sent = []
        self.judge()

    def late(self, number: int, back: int) -> None:
        """The other one, who is so many events of the case behind."""
        past = self.past.get(number, [])[back:]
        if not past:
            return
        offset = past[0]
        place = orjson.dumps({"place": offset + 1, "sequences": {"o1": offset}})
        told = [(key(number), to_json(case(number, offset), offset)), (POSITION_KEY, place)]
        self.log.writer().append([Outgoing(STATE.name, name, raw, PARTITION) for name, raw in told])

    def look(self) -> None:
        self.words.add(self.words.read(self.log))
        if not self.sent:
            self.judge()

    def judge(self) -> None:
        if self.words.pending is not None:
            self.log.writer().append(self.words.rewrites())

    def compacted(self) -> dict[bytes, int]:
        """What is left once only the last record of each key is: the log offset in it."""
        last: dict[bytes, int] = {}
        for batch in read_to_end(self.log, STATE.name, {PARTITION: 0}):
            last |= {r.key: stored_offset(r.key, r.value) for r in batch if r.key is not None and r.value is not None}
        return last


STEPS = st.one_of(
    st.tuples(st.just("fold"), st.integers(0, 2)),
    st.tuples(st.just("late"), st.integers(0, 2), st.integers(0, 5)),
    st.tuples(st.sampled_from(["deliver", "look"])),
)


@given(st.lists(STEPS, max_size=30))
@example([("fold", 0), ("fold", 0), ("deliver",), ("look",), ("late", 0, 1)])
@example([("fold", 0), ("look",), ("fold", 0), ("deliver",), ("late", 0, 1), ("look",), ("fold", 1)])
def test_after_two_looks_nothing_older_than_what_was_folded_stands_last(steps: list[tuple[object, ...]]) -> None:
    owner = Owner()
    for name, *given_ in steps:
        getattr(owner, str(name))(*given_)
    owner.deliver()
    known = {name: owner.state.reflects(name) for name in owner.state.cases}
    owner.look()
    owner.look()
    left = owner.compacted()
    assert {name: left[name] for name in known} == known


def test_where_nobody_is_late_nothing_is_said_again() -> None:
    owner = Owner()
    for number in (0, 1, 0, 2, 0):
        owner.fold(number)
        owner.look()
        owner.deliver()
        owner.look()
    assert owner.words.rewrites() == []
    assert owner.log.ends(STATE.name)[PARTITION] == 10


def test_a_restore_that_met_a_late_word_has_the_right_one_said_again() -> None:
    owner = Owner()
    for number in (0, 1, 0):
        owner.fold(number)
    owner.deliver()
    owner.late(0, back=1)
    restored = {PARTITION: PartitionState(PARTITION)}
    catch_up(owner.log, restored)
    state = restored[PARTITION]
    assert state.stale == {key(0), POSITION_KEY}
    again = StaleWrites(state, state.read_to, {}).rewrites()
    assert [record.key for record in again] == [key(0), POSITION_KEY, key(0)]
    assert again[0].topic == VIEWS["opportunity"].name
    assert orjson.loads(again[0].value or b"")["data"] == {"name": "after 3"}
    assert orjson.loads(again[0].value or b"")["event"] == "event-3"
    owner.log.writer().append(again)
    assert owner.compacted() == {key(0): 3, key(1): 2, POSITION_KEY: 4}
    fresh = {PARTITION: PartitionState(PARTITION)}
    catch_up(owner.log, fresh)
    assert not fresh[PARTITION].stale
