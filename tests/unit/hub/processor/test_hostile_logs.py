"""No content of the log can end a program: whatever lies there is folded or parked, and what follows fits into the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.kit.projection import EventRecord
from hub.kit.records import read_event, read_unchecked
from hub.log.event_log import MAX_RECORD_BYTES, Outgoing, Record
from hub.processor.folding import fold_chunk
from hub.processor.halting import MAX_FAILURES_IN_A_ROW, FailureRun
from hub.processor.source import Chunk
from hub.processor.state import PART_SEPARATOR, POSITION_KEY, PartitionState
from hub.projector import registry
from hub.projector.folding import FoldPosition, fold, take, to_fold
from hub.projector.trail_index import INDEX
from hub.rules.rule_set import RuleSet
from schemas.envelope import MAX_BYTES
from schemas.registry import EVENTS
from tests.events import event, won
from tests.unit.hub.rules.homes import HEAD, TASK, rules

REFS = [
    "opportunity/crm/O-1",
    "opportunity/crm/O-2",
    "task/pm/1",
    "project/pm/P1",
    "delivery/pm/d",
    "a/b",
    "a/b\0c",
    "x/\u00ff",
]
KEYS = [None, b"", b"\xff", POSITION_KEY, b"no reference", b"k" * 700_000, *(ref.encode() for ref in REFS)]
ODD_KEYS = [
    *KEYS,
    *(ref.encode() + PART_SEPARATOR + name for ref in REFS[:2] for name in (b"", b"#x", b"!0", b"task/pm/1")),
]
TEXT = ["", "x", "\0", "\x1b[2J", "\u202e", "网关", "x" * 200_000, "9" * 5000, "0001-01-01", "${x}", "task/pm/1"]
NUMBERS = [0, -1, 2**63, 2**64, -(10**400), 1e308, 5e-324, 10**4400]


def one_of(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    """One of these, told by its number: some are too large to be shown."""
    return st.integers(0, len(values) - 1).map(lambda at: values[at])


anything: Any = st.recursive(
    st.none() | st.booleans() | one_of(NUMBERS) | one_of(TEXT) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(one_of(TEXT[:6]) | st.text(max_size=3), inner, max_size=4),
    max_leaves=6,
)  # fmt: skip
FIELDS = [
    "name",
    "amount",
    "owner",
    "title",
    "project",
    "parked",
    "event",
    "why",
    "lines",
    "body",
    "type",
    "id",
    "due",
    "text",
]
datas = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=5) | st.builds(
    lambda n, word: {f"{word}{at}": at for at in range(n)},
    st.sampled_from([10, 900, 12_000]),
    st.sampled_from(["a", "\u4e2d"]),
)
TYPES = st.sampled_from([*EVENTS, "my.own.thing", "my.own.changed"])


@st.composite
def values(draw: st.DrawFn) -> bytes:
    """The value of a record: mostly an event, with something spoiled."""
    subject, case = draw(st.sampled_from(REFS)), draw(st.sampled_from(REFS))
    told: dict[str, Any] = {
        **won().model_dump(exclude_none=True),
        "id": draw(st.sampled_from(["1", "2", "3", "x" * 400]) | st.uuids().map(str)),
        "type": draw(TYPES), "subject": subject, "partitionkey": case, "correlationid": case,
        "subjectversion": draw(st.sampled_from(["1", "2", "10", "x", "\u00b2", "9" * 400])),
        "causationid": draw(st.sampled_from(["1", "y"])), "source": draw(st.sampled_from(["/connectors/crm", "s" * 400])),
        "data": draw(datas),
    }  # fmt: skip
    told["dataschema"] = f"urn:hub:{told['type']}:{draw(st.sampled_from(['1', '2', '0', 'x', '99999999999999999999']))}"
    if draw(st.booleans()):
        told["clears"] = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
    if draw(st.integers(0, 4)) == 0:
        told[draw(st.sampled_from(sorted(told)))] = draw(anything)
    return _dumps(told)


def _dumps(told: Any) -> bytes:
    try:
        return orjson.dumps(told)
    except (TypeError, ValueError):
        return json.dumps(told, default=str).encode("utf-8", "replace") if _writable(told) else b"{}"


def _writable(told: Any) -> bool:
    try:
        json.dumps(told)
    except (TypeError, ValueError):  # more digits than Python writes
        return False
    return True


DEEP = [b"[" * depth + b"]" * depth for depth in (90, 300, 100_000)]
damaged = st.binary(max_size=60) | st.sampled_from(
    [b"", b"{", b"null", b'"x"', b"[]", *DEEP, b" " * (2 * MAX_BYTES + 1)]
)
nested = one_of(DEEP[:2]).map(lambda deep: won().to_json().replace(b'"data":{', b'"data":{"deep":' + deep + b","))
records = st.lists(st.tuples(one_of([*ODD_KEYS, *["own"] * 20]), values() | damaged | nested), min_size=1, max_size=12)
LIVE = (
    HEAD + TASK,
    HEAD.replace("rule: won", "rule: each").replace("when: crm.opportunity.won", "when: [crm.opportunity.won, im.message.posted]")
    + 'for each: {line: "${event.data.lines}"}\ndo:\n  - message.send: {in: im, to: person/li.lei, text: "${line}"}\n',
    HEAD.replace("rule: won", "rule: traced").replace("crm.opportunity.won", "work.task.created")
    + 'scope: {mode: shadow}\nif: case.entities.exists(ref, ref == event.subject)\n' + TASK,
)  # fmt: skip


@pytest.fixture(scope="module")
def live() -> RuleSet:
    return rules(*LIVE)


def log_of(told: Sequence[tuple[bytes | str | None, bytes]]) -> list[Record]:
    found = []
    for at, (key, value) in enumerate(told):
        own = key if not isinstance(key, str) else _own_key(value)
        found.append(Record("hub.events", 0, at, own, value))
    return found


def _own_key(value: bytes) -> bytes | None:
    try:
        case = orjson.loads(value)["partitionkey"]
    except (ValueError, KeyError, TypeError, IndexError):
        return b"a/b"
    return case.encode() if isinstance(case, str) else b"a/b"


def fits(outgoing: Outgoing) -> bool:
    return len(outgoing.key) + len(outgoing.value or b"") < MAX_RECORD_BYTES


@settings(max_examples=200, deadline=None)
@given(told=records, chunk=st.integers(1, 12))
def test_the_worker_folds_or_parks_whatever_lies_in_the_log(
    live: RuleSet, told: list[tuple[bytes | str | None, bytes]], chunk: int
) -> None:
    log, state, topic = log_of(told), PartitionState(0), list[Record]()
    for at in range(0, len(log), chunk):
        some = log[at : at + chunk]
        done = fold_chunk(
            Chunk(0, some, 0), state, live, lambda offsets: [log[offset].value or b"" for offset in offsets]
        )
        assert all(fits(each) for each in (*done.outputs, *done.states))
        topic += [Record("hub.state", 0, n, each.key, each.value) for n, each in enumerate(done.states, len(topic))]
    again = PartitionState(0)
    again.take(topic)
    for key in [key for key in again.cases if PART_SEPARATOR not in key]:
        case = again.get(key)
        assert case is not None
        assert all(case.entity(ref) for ref in case.refs())


@settings(max_examples=100, deadline=None)
@given(told=records)
def test_the_boards_fold_or_pass_over_whatever_lies_in_the_log(told: list[tuple[bytes | str | None, bytes]]) -> None:
    taken = take(log_of(told), {0: FoldPosition()}, "tasks", read_event)
    for projection in registry.projections().values():
        fold(projection, to_fold(taken.found), {})
    lying = [EventRecord(*each) for each in take(log_of(told), {0: FoldPosition()}, "trail", read_unchecked).found]
    assert len(INDEX.rows(lying)[0]) == len(lying)


def test_many_objects_of_the_largest_kind_stay_within_what_the_log_takes(live: RuleSet) -> None:
    state, case, sent = PartitionState(0), "project/pm/P1", list[Outgoing]()
    wide = {f"f{at}": at for at in range(9_000)}
    for turn in range(3):
        log = [
            Record(
                "hub.events", 0, turn * 100 + n, case.encode(),
                event("my.own.changed", f"x/y/{n % 20}", case=case, id=f"{turn}-{n}", source="s" * 90, data=wide).to_json(),
            )
            for n in range(40)
        ]  # fmt: skip
        done = fold_chunk(Chunk(0, log, 0), state, live, lambda _: [])
        sent += [*done.outputs, *done.states]
    assert all(fits(each) for each in sent)


def test_however_many_fail_in_a_row_it_is_an_alarm_and_no_end() -> None:
    run = FailureRun()
    assert [run.note(60, 60) for _ in range(6)] == [False, False, False, True, False, False]
    assert run.length > MAX_FAILURES_IN_A_ROW
    assert [run.note(60, 59), run.note(300, 300)] == [False, True]
