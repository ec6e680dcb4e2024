"""Reading a partition as a reader does: repeats are nothing, a gap is a loss, and what was dealt with is passed."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.log.event_log import Outgoing, Record
from hub.log.memory_log import MemoryLog
from hub.log.outbox_in_log import records_since, tails, tails_at_least
from hub.log.partitioner import partition_of
from hub.log.sequence_gaps import SettledGaps, case_of, halted, repaired, settled_by
from hub.log.sequences import (
    MAX_OUTBOXES,
    FollowResult,
    Loss,
    ReadPosition,
    follow,
    position_before,
    sequence_of,
    skipped_offsets,
    without_sequence,
)
from schemas.registry import EVENTS
from schemas.topics import PARTITIONS
from tests.events import won

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def raw(sequence: int | None, outbox: str = "o1") -> bytes:
    body = won().to_json()
    return body if sequence is None else b'%s,"sequence":"%d","outbox":"%s"}' % (body[:-1], sequence, outbox.encode())


def records(*sequences: int | None, start: int = 0) -> list[Record]:
    return [Record("hub.events", 3, start + n, b"k", raw(sequence)) for n, sequence in enumerate(sequences)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (raw(12), ("o1", 12)),
        (b'{"sequence":"7", "outbox":"o2", "id":"x"}', ("o2", 7)),
        (b'{"data":{"sequence":"7","outbox":"o2"}}', None),
        (b'{"data":{"a":1,"sequence":"7","outbox":"o2"}}', None),
        (b'{"sequence":7,"outbox":"o2"}', None),
        (b'["sequence"]', None),
        (b'"sequence" no json', None),
        (raw(None), None),
        (b"", None),
        (None, None),
        (b'\xff\xfe no json at all,"sequence":"9","outbox":"o1"}', ("o1", 9)),
    ],
)
def test_a_record_tells_its_number_however_it_is_written(value: bytes | None, told: tuple[str, int] | None) -> None:
    assert sequence_of(value) == told


def test_what_follows_is_followed_and_repeats_change_nothing() -> None:
    found = follow(ReadPosition(), records(1, 2, 1, 2, None, 3))
    assert found == FollowResult(6, ReadPosition(6, {"o1": 3}))
    assert follow(found.place, records(2, None, 3, start=3)) == FollowResult(3, ReadPosition(6, {"o1": 3}))


def test_before_a_gap_it_stops_and_says_what_is_missing() -> None:
    found = follow(ReadPosition(4, {"o1": 9}), records(10, 12, 13, start=4))
    assert found.whole == 1
    assert found.place == ReadPosition(5, {"o1": 10})
    assert found.loss == Loss("gap", 3, 5, "o1", 10, 12)
    assert found.loss.error().code == "HUB-E2110"


def test_each_outbox_counts_for_itself() -> None:
    told = [Record("hub.events", 3, n, b"k", raw(s, o)) for n, (s, o) in enumerate([(1, "a"), (1, "b"), (2, "a")])]
    assert follow(ReadPosition(), told).place.sequences == {"a": 2, "b": 1}


def test_a_number_that_only_ends_like_the_next_one_is_not_taken_for_it() -> None:
    found = follow(ReadPosition(), records(1, 2, 13))
    assert found.loss == Loss("gap", 3, 2, "o1", 2, 13)


@pytest.mark.parametrize("outbox", ['a"b', "a\\b", "库", "x" * 120])
def test_an_outbox_may_be_called_as_it_likes(outbox: str) -> None:
    bodies = [b'%s,"sequence":"%d","outbox":%s}' % (won().to_json()[:-1], n, orjson.dumps(outbox)) for n in (1, 2, 4)]
    found = follow(ReadPosition(), [Record("hub.events", 3, n, b"k", body) for n, body in enumerate(bodies)])
    assert found.loss == Loss("gap", 3, 2, outbox, 2, 4)


def test_a_gap_that_was_dealt_with_is_passed_and_only_that_one() -> None:
    told = records(1, 5, 6, 9)
    found = follow(ReadPosition(), told, {1: False})
    assert found.loss == Loss("gap", 3, 3, "o1", 6, 9)


def test_the_number_of_a_foreign_record_that_was_dealt_with_counts_for_nothing() -> None:
    told = records(1, 2, 10**18, 3, 4, 9)
    assert follow(ReadPosition(), told).loss == Loss("gap", 3, 2, "o1", 2, 10**18)
    assert follow(ReadPosition(), told, {2: True}).loss == Loss("gap", 3, 5, "o1", 4, 9)
    assert follow(ReadPosition(), told[:5], {2: True}) == FollowResult(5, ReadPosition(5, {"o1": 4}))


def test_new_numbers_at_offsets_that_were_read_are_another_log() -> None:
    found = follow(ReadPosition(100, {"o1": 100}), records(101, start=0))
    assert found.loss is not None
    assert found.loss.kind == "replaced"


@pytest.mark.parametrize(
    ("start", "end", "kind"), [(0, 50, None), (40, 50, None), (41, 50, "gone"), (0, 39, "replaced"), (60, 60, "gone")]
)
def test_offsets_that_the_log_no_longer_has(start: int, end: int, kind: str | None) -> None:
    found = skipped_offsets(3, ReadPosition(40), start, end)
    assert (found.kind if found else None) == kind
    assert skipped_offsets(3, ReadPosition(40), 41, 50, {41}) is None


@given(sequences=st.lists(st.integers(1, 6), max_size=12), cut=st.integers(0, 12))
def test_chunks_do_not_matter(sequences: list[int], cut: int) -> None:
    told = records(*sequences)
    whole = follow(ReadPosition(), told)
    first = follow(ReadPosition(), told[:cut])
    if first.loss is not None:
        assert first == whole
    else:
        rest = follow(first.place, told[cut:])
        assert (rest.place, rest.loss) == whole[1:]


@given(
    lost=st.sets(st.integers(1, 20)),
    again=st.lists(st.integers(1, 20), max_size=6),
)
def test_no_loss_before_the_last_record_goes_unseen(lost: set[int], again: list[int]) -> None:
    """Whatever was lost on the way, and whatever comes twice of what was sent, a lost number stops the reader."""
    sent = [n for n in range(1, 21) if n not in lost]
    stream: list[int] = []
    for n in sent:
        stream.append(n)
        stream += [a for a in again if a in stream and a % 3 == n % 3]
    found = follow(ReadPosition(), records(*stream))
    missing = [n for n in lost if sent and n < max(sent)]
    assert (found.loss is not None) == bool(missing)
    if found.loss is not None:
        assert found.loss.last + 1 == min(missing)


def test_the_news_of_a_repair_lies_in_the_partition_that_waits_for_it() -> None:
    log, loss = MemoryLog(), Loss("gap", 7, 41, "o1", 3, 5)
    known = SettledGaps(log, 7, 0)
    assert known.look() == {}
    news = repaired(loss, NOW, published=0, accepted=1, reason="told", by="me")
    log.writer().append([Outgoing("hub.events", news.case.encode(), news.to_json())])
    assert known.look() == {41: False}
    assert known.position == 1
    assert halted(loss, NOW).id == halted(loss, datetime(2026, 12, 1, tzinfo=UTC)).id


def test_only_news_of_its_own_partition_count() -> None:
    news = repaired(Loss("gap", 7, 41, "o1", 3, 5), NOW, published=0, accepted=1, reason="told", by="me")
    assert settled_by([Record("hub.events", 7, 0, b"k", news.to_json())]) == {41: False}
    assert settled_by([Record("hub.events", 6, 0, b"k", news.to_json())]) == {}
    assert settled_by([Record("hub.events", 7, 0, b"k", b"hub.partition.repaired")]) == {}


def test_every_partition_has_a_case_of_its_own() -> None:
    assert [partition_of(case_of(p).encode(), PARTITIONS) for p in range(PARTITIONS)] == list(range(PARTITIONS))


@pytest.mark.parametrize(
    "make", [halted, lambda loss, now: repaired(loss, now, published=1, accepted=0, reason=None, by=None)]
)
def test_its_events_are_as_the_catalogue_says(make: object) -> None:
    assert callable(make)
    event = make(Loss("gone", 7, 41, "", 3, 41), NOW)
    EVENTS[event.type].model.model_validate(event.data)
    assert orjson.loads(event.to_json())["subject"] == "partition/hub/7"


def test_a_reader_that_kept_no_place_starts_from_what_it_has_read() -> None:
    log = MemoryLog()
    log.writer().append([Outgoing("hub.events", b"k", raw(n), 3) for n in (1, 2, 5, 6)])
    assert position_before(log, 3, 3) == (ReadPosition(3, {"o1": 5}), True)
    assert position_before(log, 4, 0) == (ReadPosition(), False)


def long_log(mine: int) -> MemoryLog:
    """Two partitions: in one, records of ours with others' between; in the other, one of ours under many of theirs."""
    log, told = MemoryLog(), list[Outgoing]()
    for sequence in range(1, mine + 1):
        told += [Outgoing("hub.events", b"k", raw(sequence), 0), Outgoing("hub.events", b"k", raw(sequence, "o2"), 0)]
    told += [Outgoing("hub.events", b"k", raw(1), 1), *[Outgoing("hub.events", b"k", None, 1)] * 30]
    log.writer().append(told)
    return log


@pytest.mark.parametrize("last", [0, 1, 700, 2499, 2500, 3999, 4000])
def test_what_came_behind_a_sequence_is_found_however_far_back_that_is(last: int) -> None:
    log = long_log(4000)
    found = [record for batch in records_since(log, "o1", {0: last}, {0: 4000}) for record in batch]
    assert [sequence_of(record.value) for record in found] == [("o1", n) for n in range(last + 1, 4001)]


def test_the_last_sequence_of_an_outbox_is_found_at_the_end_of_each_partition() -> None:
    log = long_log(100)
    assert tails(log, "o1", {}) == {0: 100, 1: 1}
    assert tails(log, "o2", {0: 40}) == {0: 100}
    assert tails(log, "o3", {}) == {}


@pytest.mark.parametrize("given_", [0, 40, 100])
@pytest.mark.parametrize("forgeries", [1, 60])
def test_a_number_that_is_far_from_all_others_is_nobodys(given_: int, forgeries: int) -> None:
    log = long_log(100)
    log.writer().append([Outgoing("hub.events", b"k", raw(10**13 + n), 0) for n in range(forgeries)])
    assert tails(log, "o1", {0: given_}) == {0: 100, 1: 1}
    assert tails_at_least(log, "o1", {0: given_ or 1}) == {0: 100, 1: 1}


def test_a_log_that_begins_with_a_high_number_is_believed() -> None:
    log = MemoryLog()
    log.writer().append([Outgoing("hub.events", b"k", raw(n), 0) for n in range(7_000_000, 7_000_009)])
    assert tails(log, "o1", {}) == {0: 7_000_008}


def test_strangers_names_without_number_do_not_swell_a_place_and_ours_is_not_forgotten() -> None:
    ours, names = records(1, 2), (f"stranger-{n}" for n in range(5000))
    flood = [Record("hub.events", 3, 2 + n, b"k", raw(1, name)) for n, name in enumerate(names)]
    place = follow(ReadPosition(), ours).place
    for start in range(0, len(flood), 100):
        followed = follow(place, flood[start : start + 100])
        assert followed.loss is None
        place = followed.place
    assert len(place.sequences) == MAX_OUTBOXES
    assert place.sequences["o1"] == 2
    assert follow(place, records(3, start=place.next_offset)).loss is None
    gap = follow(place, records(4, start=place.next_offset)).loss
    assert gap is not None
    assert (gap.kind, gap.outbox, gap.last, gap.found) == ("gap", "o1", 2, 4)
    log = MemoryLog()
    log.writer().append([Outgoing("hub.events", b"k", record.value, 3) for record in (*ours, *flood)])
    known, _ = position_before(log, 3, 5002)
    assert (len(known.sequences), known.sequences["o1"]) == (MAX_OUTBOXES, 2)


def test_an_event_is_as_the_outbox_had_it_once_its_number_is_taken_off() -> None:
    assert without_sequence(raw(7)) == without_sequence(raw(None)) == won().to_json()
