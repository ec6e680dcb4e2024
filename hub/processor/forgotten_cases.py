"""Restores a forgotten case when a new event of it arrives: its records are read again and folded by the rules that decided them.

The outputs of this fold are not sent: they were sent before, and the restored case remembers that. One fold reads a bounded number
of records, so that many cases that return together delay the others no longer than a few do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hub.engine.parking import Reread
from hub.engine.step import StepRules
from hub.log.event_log import EventLog, Record, StoredRecord, read_to_end
from hub.processor.case_expiry import MAX_CASE_RECORDS, Spans, merge_stretches, record_count
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState
from schemas.topics import EVENTS

MAX_REFOLDED_RECORDS = 2 * MAX_CASE_RECORDS
"""Records of forgotten cases that are folded again at once, at most."""
MAX_GAP_RECORDS = 2000
"""Records of other cases that are read along before a new reader is opened after them."""
READ_BATCH = 2000
"""Records in one read."""

SplitByRules = Callable[[Sequence[StoredRecord]], Sequence[tuple[Sequence[StoredRecord], StepRules]]]
"""Splits records that were folded before by the rules that decided them."""


def split_records(state: PartitionState, records: Sequence[StoredRecord]) -> Iterator[Sequence[StoredRecord]]:
    """Yield the records in order, split so that no part restores more than `MAX_REFOLDED_RECORDS` records.

    Fold each part before taking the next: a case that one part has restored is no longer forgotten for the next.
    """
    if not state.forgotten:
        yield records
        return
    begin, spent, restored = 0, 0, set[bytes]()
    for index, record in enumerate(records):
        key = record.key or b""
        if key in restored or not concerns_forgotten(state, record):
            continue
        size = record_count(state.spans(key))
        if restored and spent + size > MAX_REFOLDED_RECORDS:
            yield records[begin:index]
            begin, spent, restored = index, 0, set()
        restored.add(key)
        spent += size
    yield records[begin:]


def returning_cases(state: PartitionState, records: Sequence[StoredRecord]) -> dict[bytes, Spans]:
    """The forgotten cases that these records are new to, with the spans of their records."""
    if not state.forgotten:
        return {}
    return {
        key: state.spans(key) for record in records if (key := record.key or b"") and concerns_forgotten(state, record)
    }


def concerns_forgotten(state: PartitionState, record: StoredRecord) -> bool:
    """Whether a record belongs to a forgotten case and is newer than what the case reflected."""
    key = record.key or b""
    return key in state.forgotten and record.offset > state.reflects(key)


def reread_records(log: EventLog, partition: int, cases: Mapping[bytes, Spans]) -> list[Record]:
    """The records of these cases in their spans, in log order. Blocks; raises what the log raises.

    Records that the log no longer retains are missing, as they are in a fold of the whole log.
    """
    result, start = list[Record](), log.starts(EVENTS.name)[partition]
    for first, last in merge_stretches(cases.values(), MAX_GAP_RECORDS):
        for batch in read_to_end(log, EVENTS.name, {partition: max(first, start)}, limit=READ_BATCH):
            result += [record for record in batch if record.key in cases and record.offset <= last]
            if batch[-1].offset >= last:
                break
    return result


def refold(partition: int, records: Sequence[StoredRecord], split: SplitByRules, reread: Reread) -> PartitionState:
    """The cases of these records, folded up to the last of them."""
    state = PartitionState(partition)
    for part, rules in split(records) if records else ():
        fold_chunk(Chunk(partition, part, part[-1].offset + 1), state, rules, reread)
    return state
