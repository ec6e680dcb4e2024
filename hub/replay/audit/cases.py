"""Compares each case's fold of the log with the processor's state, the shared view and the boards.

Reads one partition at a time, so memory holds one partition at most.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hub.log.event_log import EventLog
from hub.replay.audit.boards import BoardAudit
from hub.replay.audit.fold import DELETED, VIEW_FIELDS, EntityState, digest, fold_entities
from hub.replay.audit.reading import (
    EDITED,
    IGNORED,
    AuditedRecord,
    PartitionRecords,
    ProcessorState,
    ProcessorStates,
    correction_in,
    read_discarded,
    read_partition,
    read_states,
)
from hub.replay.audit.report import Report
from schemas.envelope import Event
from schemas.registry import ENDS
from schemas.topics import EVENTS

PARKED_WORK_EVENTS = frozenset({"hub.parked.retried", "hub.parked.discarded", EDITED})
"""Events about parked work: they change its status, and carry no entity data."""
IsForeign = Callable[[int, Event], bool]
"""Whether an event of a partition was written by no outbox of this hub."""
MAX_COMBINATIONS = 256
"""Combinations of one case's corrections that are tried."""


@dataclass
class CrossPartitionFacts:
    """What all partitions give together, for the comparisons that need them all: shared view, parked work."""

    views: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Reference → case → digest of what the shared view must hold."""
    known: set[str] = field(default_factory=set)
    """The ids of all events that were folded or are parked."""
    ahead: set[str] = field(default_factory=set)
    """The ids of the events that the processor has not folded yet."""
    parked: dict[str, float] = field(default_factory=dict)
    """Ref of each parked record → when it was written to the log."""
    behind: int = 0
    """How many cases have records that the processor has not folded yet."""


@dataclass
class CaseAudit:
    """Compares every case, and adds each difference to `report`."""

    report: Report
    log: EventLog
    discarded: Container[str]
    """Refs of the parked work that the ledger has as discarded."""
    boards: BoardAudit
    late: float
    is_foreign: IsForeign
    facts: CrossPartitionFacts = field(default_factory=CrossPartitionFacts)

    def run(self) -> CrossPartitionFacts:
        """Compare every partition. The read order is log, states, discards: each explains differences in the one before."""
        self.report.count(**dict.fromkeys(("cases", "cases_behind", "events_applied", "events_parked"), 0))
        for number in sorted(self.log.ends(EVENTS.name)):
            records = read_partition(self.log, number)
            states = read_states(self.log, number)
            discarded = read_discarded(self.log, number)
            self._partition(records, states, discarded)
        return self.facts

    def _partition(self, records: PartitionRecords, states: ProcessorStates, discarded: set[str]) -> None:
        place = f"hub.events/{records.number}"
        self.report.find("events that came twice, under two sequences", records.resequenced, place)
        self.report.count(events_repeated=records.repeats, records_of_no_case=len(records.loose))
        self.facts.parked |= {record.ref: record.time for record in records.loose}
        stuck, wrong, early, odd, foreign = list[str](), list[str](), list[str](), list[str](), list[str]()
        alive, lost_records = list[str](), list[str]()
        for key, of_case in records.cases.items():
            name, state = key.decode(), states.cases.get(key) or _stateless(of_case, states.next_offset)
            if of_case[-1].offset > state.offset:
                self.report.count(cases_behind=1)
                self.facts.behind += 1
                stuck += [name] if of_case[-1].time < self.late else []
            dropped = frozenset(each.ref for each in of_case if self._is_discarded(each, state, discarded))
            case = AuditedCase(name, of_case, state, dropped)
            self.boards.expect(records.number, name, of_case)
            wrong += [f"{name}: {ref}" for ref in case.differing()]
            early += [f"{name}: {event}" for event in case.out_of_turn()]
            odd += case.unaccounted()
            alive += [name] if case.is_forgotten and not case.is_over() else []
            lost_records += case.unreached()
            foreign += self._foreign(records.number, case)
            self._add(case)
        where = f"hub.state/{records.number}"
        self.report.find("cases whose last event the processor has not folded", stuck, where)
        self.report.find("objects of cases that are not the fold of the log", wrong, where)
        self.report.find("events that were folded before what is parked in front of them", early, where)
        self.report.find("cases that were forgotten before they were over", alive, where)
        self.report.find("records that a forgotten case would not come back with", lost_records, where)
        self.report.find("records that are neither folded, parked nor given up", odd, place)
        self.report.find("events that were acted on, and that this hub never took in", foreign, place)
        lost = [key.decode(errors="replace") for key in states.cases if key not in records.cases]
        self.report.find("cases that the log does not tell of", lost, where)

    def _foreign(self, number: int, case: AuditedCase) -> list[str]:
        """Events that were folded though the hub never accepted them. Parked ones are left out: they wait for a person anyway."""
        return [
            f"{each.offset}: {each.event.type} {each.event.id}"
            for each in case.rest
            if each.event is not None and self.is_foreign(number, each.event)
        ]

    def _is_discarded(self, record: AuditedRecord, state: ProcessorState, discarded: set[str]) -> bool:
        return record.offset not in state.held and (record.ref in discarded or record.ref in self.discarded)

    def _add(self, case: AuditedCase) -> None:
        facts, folded = self.facts, case.folded
        self.report.count(
            cases=1,
            cases_forgotten=int(case.is_forgotten),
            events_applied=sum(event.type != IGNORED for event in folded),
            events_ignored=sum(event.type == IGNORED for event in folded),
            events_parked=len(case.held),
            events_discarded=len(case.dropped),
            events_notes=case.notes,
            events_behind=len(case.behind),
        )
        facts.parked |= {record.ref: record.time for record in case.held}
        facts.ahead |= {record.event.id for record in case.behind if record.event}
        facts.known |= {record.event.id for record in case.records if record.event}
        for ref, entity in case.entities.items():
            facts.views.setdefault(ref, {})[case.name] = digest(entity, VIEW_FIELDS)


def _stateless(records: Sequence[AuditedRecord], next_offset: int) -> ProcessorState:
    """The state of a case that has none: the processor stores no state for deliveries that matched nothing."""
    ignored = all(each.event is not None and each.event.type == IGNORED for each in records)
    return ProcessorState(next_offset - 1, None) if ignored else ProcessorState()


class AuditedCase:
    """One case: its records divided by the processor's state into folded, parked, discarded and not yet read, and their fold."""

    def __init__(
        self, name: str, records: Sequence[AuditedRecord], state: ProcessorState, discarded: frozenset[str]
    ) -> None:
        self.name, self.records, self.state = name, records, state
        done = [each for each in records if each.offset <= state.offset]
        self.behind = records[len(done) :]
        self.held = [each for each in done if each.offset in state.held]
        self.dropped = [each for each in done if each.ref in discarded]
        rest = [each for each in done if each.offset not in state.held and each.ref not in discarded]
        self.notes = sum(each.event is not None and each.event.type in PARKED_WORK_EVENTS for each in rest)
        self.rest = [each for each in rest if each.event is None or each.event.type not in PARKED_WORK_EVENTS]
        self.corrections = corrections(done)
        self.folded: list[Event] = []
        self.entities: dict[str, EntityState] = {}
        for corrected in _combinations(self.corrections):
            self.folded = list(self._events(corrected))
            self.entities = fold_entities(self.folded)
            if not self.corrections or not self.differing():
                break

    def _events(self, corrected: Mapping[str, Event]) -> Iterator[Event]:
        for each in self.rest:
            event = corrected.get(each.ref, each.event)
            if event is not None:
                yield event

    def differing(self) -> list[str]:
        """The refs of entities whose processor state differs from the audit's fold."""
        stored = self.state.entities
        if stored is None:
            return []
        refs = self.entities.keys() | stored.keys()
        return [ref for ref in refs if digest(self.entities.get(ref, {})) != digest(stored.get(ref, {}))]

    @property
    def is_forgotten(self) -> bool:
        """Whether the case has expired: the processor stores only the offset ranges of its records."""
        return self.state.spans is not None

    def is_over(self) -> bool:
        """Whether at least one entity has ended, and none that can end is still open."""
        ended = {_has_ended(ref, entity) for ref, entity in self.entities.items()}
        return True in ended and False not in ended

    def unreached(self) -> list[str]:
        """Records outside the stored offset ranges: the processor would not re-read them on the case's next event."""
        if self.state.spans is None:
            return []
        opened = itertools.dropwhile(lambda each: each.event is not None and each.event.type == IGNORED, self.records)
        folded = [each for each in opened if each.offset <= self.state.offset]
        return [f"{self.name}: {each.offset}" for each in folded if not _is_within(each.offset, self.state.spans)]

    def out_of_turn(self) -> list[str]:
        """Refs of events that were folded although an earlier one is parked."""
        first = min((each.offset for each in self.held), default=None)
        return [each.ref for each in self.rest if first is not None and each.offset > first]

    def unaccounted(self) -> list[str]:
        """Refs of unreadable records that the processor passed without parking them."""
        return [each.ref for each in self.rest if each.event is None and each.ref not in self.corrections]


def _has_ended(ref: str, entity: EntityState) -> bool | None:
    """None for a kind of entity that no event ends."""
    if entity["stage"] == DELETED:
        return True
    ends = ENDS.get(ref.partition("/")[0])
    return entity["stage"] in ends if ends is not None else None


def _is_within(offset: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(first <= offset <= last for first, last in spans)


def corrections(records: Sequence[AuditedRecord]) -> dict[str, list[Event]]:
    """Ref of a parked record → all events with which a person has replaced it, newest first."""
    by_ref: dict[str, list[Event]] = {}
    for each in records:
        event = correction_in(each.event) if each.event is not None else None
        if each.event is not None and event is not None:
            parked = str(each.event.data.get("parked"))
            by_ref.setdefault(parked if parked.startswith("record/") else f"event/{parked}", []).insert(0, event)
    return by_ref


def _combinations(candidates: Mapping[str, Sequence[Event]]) -> Iterator[dict[str, Event]]:
    """The possible effective corrections: one that came after the retry it was meant for had no effect."""
    options = [[*((ref, event) for event in events), (ref, None)] for ref, events in candidates.items()]
    for chosen in itertools.islice(itertools.product(*options), MAX_COMBINATIONS):
        yield {ref: event for ref, event in chosen if event is not None}
