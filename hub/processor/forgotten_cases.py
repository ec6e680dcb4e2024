"""A case that was forgotten comes back when there are news of it: its records are read again and folded by the rules of then.

Nothing of what they ask for is sent: it was, and the case remembers again that it was. What is read at once is bounded, so that
many that come back together hold the others up no longer than a few of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hub.engine.parking import Reread
from hub.engine.step import StepRules
from hub.log.event_log import EventLog, Record, Stored, read_to_end
from hub.processor.case_expiry import MOST_READ, Spans, length, together
from hub.processor.folding import fold_chunk
from hub.processor.source import Chunk
from hub.processor.state import PartitionState
from schemas.topics import EVENTS

TOGETHER = 2 * MOST_READ
"""Records of forgotten cases that are folded again in one go."""
NEAR = 2000
"""Records of others that are read past rather than that a reader is made for what lies behind them."""
AT_ONCE = 2000
"""Records in one reading."""

Judge = Callable[[Sequence[Stored]], Sequence[tuple[Sequence[Stored], StepRules]]]
"""Records that were judged before, by the rules that judged them."""


def pieces(state: PartitionState, records: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """The records in their order, cut so that no piece brings back more than is sensible.

    To be gone through while the pieces are folded: what one has brought back is there for the next.
    """
    if not state.forgotten:
        yield records
        return
    begin, spent, back = 0, 0, set[bytes]()
    for at, record in enumerate(records):
        key = record.key or b""
        if key in back or not is_news(state, record):
            continue
        needs = length(state.spans(key))
        if back and spent + needs > TOGETHER:
            yield records[begin:at]
            begin, spent, back = at, 0, set()
        back.add(key)
        spent += needs
    yield records[begin:]


def returning(state: PartitionState, records: Sequence[Stored]) -> dict[bytes, Spans]:
    """The forgotten cases of which these are news, and where their records lie."""
    if not state.forgotten:
        return {}
    return {key: state.spans(key) for record in records if (key := record.key or b"") and is_news(state, record)}


def is_news(state: PartitionState, record: Stored) -> bool:
    """Whether a record is of a forgotten case, and not one that the case reflected."""
    key = record.key or b""
    return key in state.forgotten and record.offset > state.reflects(key)


def read_again(log: EventLog, partition: int, cases: Mapping[bytes, Spans]) -> list[Record]:
    """The records of these cases that lie in their spans, in the order of the log. Blocks; raises what the log raises.

    What the log keeps no longer is left out, as where all is folded anew.
    """
    found, start = list[Record](), log.starts(EVENTS.name)[partition]
    for first, last in together(cases.values(), NEAR):
        for batch in read_to_end(log, EVENTS.name, {partition: max(first, start)}, limit=AT_ONCE):
            found += [record for record in batch if record.key in cases and record.offset <= last]
            if batch[-1].offset >= last:
                break
    return found


def folded_again(partition: int, records: Sequence[Stored], judge: Judge, reread: Reread) -> PartitionState:
    """The cases of these records, as they are behind the last of them."""
    state = PartitionState(partition)
    for part, rules in judge(records) if records else ():
        fold_chunk(Chunk(partition, part, part[-1].offset + 1), state, rules, reread)
    return state
