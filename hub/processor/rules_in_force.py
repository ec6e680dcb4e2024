"""Selects the rule set that decides each record of this worker's partitions, and switches to newly announced sets.

A record that is folded again is decided by the same set as before: the one that the log shows as in force. Records that no worker
can have decided use the set that was announced last; before any output of theirs is sent, an event in the log announces from
which offset that set is in force.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from hub.engine.step import StepRules
from hub.log.event_log import StoredRecord
from hub.rules.book import RuleBook
from hub.rules.history import RULES_IN_FORCE_TYPE, InForce, Sets, Span, rule_event, spans, split_by_span
from schemas.domains.hub import RULES_CASE
from schemas.envelope import Event, derived_id, format_time

SequencesBefore = Callable[[], Mapping[str, int]]


class RecordSpan(NamedTuple):
    """Records that one rule set decides. `live`: for the first time, as far as is known."""

    records: Sequence[StoredRecord]
    rules: StepRules
    live: bool


class RuleSource(Protocol):
    """What a worker needs of its rules."""

    def parts(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        """Split the records, in order, by the rules that decide them."""

    def again(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        """As `parts`, for records that were decided before, here or elsewhere: by the rules in force then."""

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        """Whether the rules that decided each record between these offsets are known."""

    def news(self, partition: int, records: Sequence[StoredRecord], after: Mapping[str, int]) -> Event | None:
        """The event, if any, that must be in the log before any output of these records is sent.

        `after`: outbox → its last sequence before them.
        """

    def assigned(self, partition: int, folded: int | None, end: int, after: SequencesBefore) -> Event | None:
        """Take a partition over that is `folded` up to an offset (None: unknown); the event, if any, that must be in the log first.

        `after` returns outbox → its last sequence before `end`; it reads the log, so it is only called when needed.
        """


@dataclass
class FixedRules:
    """One rule set for all records, without announcements in the log: for tests and experiments."""

    rules: StepRules

    def parts(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        return [RecordSpan(records, self.rules, True)]

    def again(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        return [RecordSpan(records, self.rules, False)]

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        return True

    def news(self, partition: int, records: Sequence[StoredRecord], after: Mapping[str, int]) -> Event | None:
        return None

    def assigned(self, partition: int, folded: int | None, end: int, after: SequencesBefore) -> Event | None:
        return None


@dataclass
class _Partition:
    """The rule sets in force in one partition."""

    history: list[Span]
    undecided_from: int
    """The offset from which no worker can have decided a record."""
    sets: Sets | None
    """The sets in force since the last announcement; None before the first."""
    last: str | None
    """The id of that announcement."""
    doubt_to: int
    """Records before this offset may have been decided by a worker that has ended."""
    restate_from: int | None = None
    """The offset from which to announce our sets again after an expired worker announced others; None if none did."""


class RulesTarget(NamedTuple):
    """The rule set that decides new records."""

    sets: Sets
    rules: StepRules


@dataclass
class InForceRules:
    """The rules by the log's history of announcements. All but `target` is for the worker's own thread."""

    book: RuleBook
    target: RulesTarget
    """Replaced as a whole when other rules are announced."""
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _ours: set[str] = field(default_factory=set)

    def parts(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        current = self._partitions[partition]
        if records[0].offset >= current.undecided_from:
            return [RecordSpan(records, self.target.rules, True)]
        return self._split(current, records)

    def again(self, partition: int, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        history = self._partitions[partition].history
        return [
            RecordSpan(part, self.book.rules_of(history[at].sets), False)
            for at, part in split_by_span(history, records)
        ]

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        spans = self._partitions[partition].history
        return not any(span.from_offset <= last and first < (span.doubt_to or 0) for span in spans)

    def _split(self, current: _Partition, records: Sequence[StoredRecord]) -> list[RecordSpan]:
        """Split the records by the history's spans; the target decides new ones."""
        old = [span for span in current.history if span.from_offset < current.undecided_from or span.after]
        new = bisect_left(records, current.undecided_from, key=lambda record: record.offset)
        decided = [
            RecordSpan(part, self.book.rules_of(old[at].sets), False) for at, part in split_by_span(old, records[:new])
        ]
        return [*decided, RecordSpan(records[new:], self.target.rules, True)] if new < len(records) else decided

    def news(self, partition: int, records: Sequence[StoredRecord], after: Mapping[str, int]) -> Event | None:
        current, target = self._partitions[partition], self.target
        first = next((record.offset for record in records if record.offset >= current.undecided_from), None)
        if first is None or (current.sets == target.sets and current.restate_from is None):
            return None
        begins = first if current.restate_from is None else min(first, current.restate_from)
        event = self._announce(partition, current, begins, target.sets, after if begins == records[0].offset else {})
        current.restate_from = None
        return event

    def assigned(self, partition: int, folded: int | None, end: int, after: SequencesBefore) -> Event | None:
        entries = self.book.history.in_force(partition)
        last = entries[-1] if entries else None
        free = self._undecided_from(partition, folded, end, last)
        current = self._partitions[partition] = _Partition(
            spans(entries), free, last.sets if last else None, last.id if last else None, end
        )
        begins = last.from_offset if last else 0
        if folded is None and free > begins:
            # If this worker ends before all of it is folded again, the next one must not take the rest for new records.
            return self._announce(partition, current, free, self.target.sets, after() if free == end else {})
        return None

    def _undecided_from(self, partition: int, folded: int | None, end: int, last: InForce | None) -> int:
        if last is None:
            return self.book.history.before(partition) if folded is None else folded
        return max(end if folded is None else folded, last.from_offset)

    def overtaken(self) -> None:
        """Check for announcements by other workers for our partitions: those of an expired worker are announced over."""
        for partition, current in list(self._partitions.items()):
            last = next(iter(reversed(self.book.history.in_force(partition))), None)
            if last is None or last.id == current.last or last.id in self._ours:
                continue
            own = max((span.from_offset for span in current.history), default=0)
            current.last, current.restate_from = last.id, max(own, last.from_offset)

    def _announce(
        self, partition: int, current: _Partition, begins: int, sets: Sets, after: Mapping[str, int]
    ) -> Event:
        doubt = current.doubt_to if begins < current.doubt_to and current.sets not in (None, sets) else None
        event = in_force(partition, begins, sets, current.last, doubt, after, format_time(datetime.now(UTC)))
        current.history = [
            *(span for span in current.history if span.from_offset < begins),
            Span(begins, sets, doubt, after),
        ]
        current.sets, current.last = sets, event.id
        self._ours.add(event.id)
        return event


def in_force(
    partition: int,
    from_offset: int,
    sets: Sets,
    previous: str | None,
    doubt_to: int | None,
    after: Mapping[str, int],
    now: str,
) -> Event:
    """The event that these sets are in force in a partition from an offset on. Its id derives from that and the previous one."""
    id_ = derived_id("in-force", str(partition), str(from_offset), *sets, previous or "")
    data = {
        "partition": partition,
        "from_offset": from_offset,
        **sets._asdict(),
        "previous": previous,
        "doubt_to": doubt_to,
        "after": dict(after),
    }
    return rule_event(RULES_IN_FORCE_TYPE, id_, f"{RULES_CASE}/{partition}", now, data)
