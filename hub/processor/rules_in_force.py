"""Which rules judge which records of this worker's partitions, and when others take over.

What was judged once is judged alike whenever it is folded anew: by the set that the log says was in force. Records that nobody
can have judged are judged by the set that was announced last; before anything that it decides is sent, the log is told from
which offset on it does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from hub.engine.step import StepRules
from hub.log.event_log import Stored
from hub.rules.book import RuleBook
from hub.rules.history import IN_FORCE, InForce, Sets, Span, cut, rule_event, spans
from schemas.domains.hub import RULES_CASE
from schemas.envelope import Event, derived_id, format_time

After = Callable[[], Mapping[str, int]]


class RecordSpan(NamedTuple):
    """Records that one set judges. `live`: for the first time, as far as anybody knows."""

    records: Sequence[Stored]
    rules: StepRules
    live: bool


class Judged(Protocol):
    """What a worker asks of its rules."""

    def parts(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        """The records, by who judges them, in their order."""

    def again(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        """The same, for records that were judged here or elsewhere: by the rules of then."""

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        """Whether it is known which rules judged each record between these offsets."""

    def news(self, partition: int, records: Sequence[Stored], after: Mapping[str, int]) -> Event | None:
        """What the log must be told before anything is sent that came of these.

        `after` are each outbox's last sequences before them.
        """

    def assigned(self, partition: int, folded: int | None, end: int, after: After) -> Event | None:
        """Take a partition over, `folded` up to there (None: nobody knows); what the log must be told first.

        `after` tells, if it is asked, each outbox's last sequence before the end.
        """


@dataclass
class Always:
    """One set for all that comes, and no word of it to the log: for tests, and for trying."""

    rules: StepRules

    def parts(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        return [RecordSpan(records, self.rules, True)]

    def again(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        return [RecordSpan(records, self.rules, False)]

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        return True

    def news(self, partition: int, records: Sequence[Stored], after: Mapping[str, int]) -> Event | None:
        return None

    def assigned(self, partition: int, folded: int | None, end: int, after: After) -> Event | None:
        return None


@dataclass
class _Partition:
    """What judges one partition."""

    history: list[Span]
    free_from: int
    """From here on nobody can have judged anything."""
    sets: Sets | None
    """Those in force from its last word on; None where there was none."""
    last: str | None
    """The event that says so."""
    doubt_to: int
    """Records before this offset may have been judged by a worker that has ended."""
    said_again: int | None = None
    """Somebody who was late has said otherwise: from where on ours is to be said again."""


class RulesTarget(NamedTuple):
    """What judges new records."""

    sets: Sets
    rules: StepRules


@dataclass
class InForceRules:
    """The rules as the log has them in force. Everything but `target` is for the worker's own thread."""

    book: RuleBook
    target: RulesTarget
    """Replaced as a whole when others are announced."""
    _partitions: dict[int, _Partition] = field(default_factory=dict)
    _ours: set[str] = field(default_factory=set)

    def parts(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        known = self._partitions[partition]
        if records[0].offset >= known.free_from:
            return [RecordSpan(records, self.target.rules, True)]
        return self._cut(known, records)

    def again(self, partition: int, records: Sequence[Stored]) -> list[RecordSpan]:
        history = self._partitions[partition].history
        return [RecordSpan(part, self.book.rules_of(history[at].sets), False) for at, part in cut(history, records)]

    def are_sure(self, partition: int, first: int, last: int) -> bool:
        spans = self._partitions[partition].history
        return not any(span.from_offset <= last and first < (span.doubt_to or 0) for span in spans)

    def _cut(self, known: _Partition, records: Sequence[Stored]) -> list[RecordSpan]:
        """By the spans of history, and what is new by the target."""
        old = [span for span in known.history if span.from_offset < known.free_from or span.after]
        new = bisect_left(records, known.free_from, key=lambda record: record.offset)
        found = [RecordSpan(part, self.book.rules_of(old[at].sets), False) for at, part in cut(old, records[:new])]
        return [*found, RecordSpan(records[new:], self.target.rules, True)] if new < len(records) else found

    def news(self, partition: int, records: Sequence[Stored], after: Mapping[str, int]) -> Event | None:
        known, target = self._partitions[partition], self.target
        first = next((record.offset for record in records if record.offset >= known.free_from), None)
        if first is None or (known.sets == target.sets and known.said_again is None):
            return None
        begins = first if known.said_again is None else min(first, known.said_again)
        told = self._told(partition, known, begins, target.sets, after if begins == records[0].offset else {})
        known.said_again = None
        return told

    def assigned(self, partition: int, folded: int | None, end: int, after: After) -> Event | None:
        entries = self.book.history.in_force(partition)
        last = entries[-1] if entries else None
        free = self._free_from(partition, folded, end, last)
        known = self._partitions[partition] = _Partition(
            spans(entries), free, last.sets if last else None, last.id if last else None, end
        )
        begins = last.from_offset if last else 0
        if folded is None and free > begins:
            # Should this worker end before all is folded anew, the next one must not take what is left for new.
            return self._told(partition, known, free, self.target.sets, after() if free == end else {})
        return None

    def _free_from(self, partition: int, folded: int | None, end: int, last: InForce | None) -> int:
        if last is None:
            return self.book.history.before(partition) if folded is None else folded
        return max(end if folded is None else folded, last.from_offset)

    def overtaken(self) -> None:
        """See whether another has spoken of our partitions since we have them: one that was late, as they are ours."""
        for partition, known in list(self._partitions.items()):
            last = next(iter(reversed(self.book.history.in_force(partition))), None)
            if last is None or last.id == known.last or last.id in self._ours:
                continue
            own = max((span.from_offset for span in known.history), default=0)
            known.last, known.said_again = last.id, max(own, last.from_offset)

    def _told(self, partition: int, known: _Partition, begins: int, sets: Sets, after: Mapping[str, int]) -> Event:
        doubt = known.doubt_to if begins < known.doubt_to and known.sets not in (None, sets) else None
        event = in_force(partition, begins, sets, known.last, doubt, after, format_time(datetime.now(UTC)))
        known.history = [
            *(span for span in known.history if span.from_offset < begins),
            Span(begins, sets, doubt, after),
        ]
        known.sets, known.last = sets, event.id
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
    """The word that these judge a partition from an offset on. Its id derives from that and from the word before it."""
    id_ = derived_id("in-force", str(partition), str(from_offset), *sets, previous or "")
    data = {
        "partition": partition,
        "from_offset": from_offset,
        **sets._asdict(),
        "previous": previous,
        "doubt_to": doubt_to,
        "after": dict(after),
    }
    return rule_event(IN_FORCE, id_, f"{RULES_CASE}/{partition}", now, data)
