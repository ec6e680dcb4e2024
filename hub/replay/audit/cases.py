"""Every case: what the log tells of its objects beside what the processor, the shared view and the boards have of them.

One partition at a time, so that memory holds no more than one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from hub.log.event_log import EventLog
from hub.replay.audit.boards import BoardAudit
from hub.replay.audit.fold import DELETED, VIEWED, Thing, digest, things
from hub.replay.audit.reading import (
    EDITED,
    IGNORED,
    Filed,
    Partition,
    ProcessorState,
    States,
    corrected,
    given_up,
    partition,
    states,
)
from hub.replay.audit.report import Report
from schemas.envelope import Event
from schemas.registry import ENDS
from schemas.topics import EVENTS

NOTES = frozenset({"hub.parked.retried", "hub.parked.discarded", EDITED})
"""Events about parked work: they move it, and tell of no object."""
IsForeign = Callable[[int, Event], bool]
"""Whether an event in a partition came from no outbox of this hub."""
CHOICES = 256
"""Ways to read the corrections of one case that are tried."""


@dataclass
class CrossPartitionFacts:
    """What all partitions together tell, for what lies elsewhere."""

    views: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Reference → case → what the shared view must say."""
    known: set[str] = field(default_factory=set)
    """The ids of all events that were folded or are parked."""
    ahead: set[str] = field(default_factory=set)
    """The ids of those that the processor has yet to fold."""
    parked: dict[str, float] = field(default_factory=dict)
    """What is parked, by its name, and when it came."""
    behind: int = 0


@dataclass
class CaseAudit:
    """Goes through the cases, and notes in `report` what is not as it must be."""

    report: Report
    log: EventLog
    discarded: Container[str]
    """What the ledger says was given up."""
    boards: BoardAudit
    late: float
    is_foreign: IsForeign
    told: CrossPartitionFacts = field(default_factory=CrossPartitionFacts)

    def look(self) -> CrossPartitionFacts:
        """Compare every partition. Read in this order: the log, states, what was given up; so each explains the one before."""
        self.report.count(**dict.fromkeys(("cases", "cases_behind", "events_applied", "events_parked"), 0))
        for number in sorted(self.log.ends(EVENTS.name)):
            found = partition(self.log, number)
            known = states(self.log, number)
            gone = given_up(self.log, number)
            self._partition(found, known, gone)
        return self.told

    def _partition(self, found: Partition, known: States, gone: set[str]) -> None:
        place = f"hub.events/{found.number}"
        self.report.find("events that came twice, under two sequences", found.doubled, place)
        self.report.count(events_repeated=found.repeats, records_of_no_case=len(found.loose))
        self.told.parked |= {filed.ref: filed.time for filed in found.loose}
        stuck, wrong, early, odd, foreign = list[str](), list[str](), list[str](), list[str](), list[str]()
        alive, lost_records = list[str](), list[str]()
        for key, filed in found.cases.items():
            name, state = key.decode(), known.cases.get(key) or _stateless(filed, known.next_offset)
            if filed[-1].offset > state.offset:
                self.report.count(cases_behind=1)
                self.told.behind += 1
                stuck += [name] if filed[-1].time < self.late else []
            case = AuditedCase(name, filed, state, frozenset(f.ref for f in filed if self._is_gone(f, state, gone)))
            self.boards.expect(found.number, name, filed)
            wrong += [f"{name}: {ref}" for ref in case.differing()]
            early += [f"{name}: {event}" for event in case.out_of_turn()]
            odd += case.unaccounted()
            alive += [name] if case.is_forgotten and not case.is_over() else []
            lost_records += case.unreached()
            foreign += self._foreign(found.number, case)
            self._note(case)
        where = f"hub.state/{found.number}"
        self.report.find("cases whose last event the processor has not folded", stuck, where)
        self.report.find("objects of cases that are not the fold of the log", wrong, where)
        self.report.find("events that were folded before what is parked in front of them", early, where)
        self.report.find("cases that were forgotten before they were over", alive, where)
        self.report.find("records that a forgotten case would not come back with", lost_records, where)
        self.report.find("records that are neither folded, parked nor given up", odd, place)
        self.report.find("events that were acted on, and that this hub never took in", foreign, place)
        lost = [key.decode(errors="replace") for key in known.cases if key not in found.cases]
        self.report.find("cases that the log does not tell of", lost, where)

    def _foreign(self, number: int, case: AuditedCase) -> list[str]:
        """The events that were acted on, and that the hub never took in. What is parked waits for a person anyhow."""
        return [
            f"{each.offset}: {each.event.type} {each.event.id}"
            for each in case.rest
            if each.event is not None and self.is_foreign(number, each.event)
        ]

    def _is_gone(self, filed: Filed, state: ProcessorState, gone: set[str]) -> bool:
        return filed.offset not in state.held and (filed.ref in gone or filed.ref in self.discarded)

    def _note(self, case: AuditedCase) -> None:
        told, folded = self.told, case.folded
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
        told.parked |= {filed.ref: filed.time for filed in case.held}
        told.ahead |= {filed.event.id for filed in case.behind if filed.event}
        told.known |= {filed.event.id for filed in case.filed if filed.event}
        for ref, thing in case.things.items():
            told.views.setdefault(ref, {})[case.name] = digest(thing, VIEWED)


def _stateless(filed: Sequence[Filed], next_offset: int) -> ProcessorState:
    """The state of a case that has none: of pushes that matched nothing the processor keeps nothing."""
    ignored = all(each.event is not None and each.event.type == IGNORED for each in filed)
    return ProcessorState(next_offset - 1, None) if ignored else ProcessorState()


class AuditedCase:
    """One case, taken apart by what the processor says of it, and folded."""

    def __init__(self, name: str, filed: Sequence[Filed], state: ProcessorState, gone: frozenset[str]) -> None:
        self.name, self.filed, self.state = name, filed, state
        done = [each for each in filed if each.offset <= state.offset]
        self.behind = filed[len(done) :]
        self.held = [each for each in done if each.offset in state.held]
        self.dropped = [each for each in done if each.ref in gone]
        rest = [each for each in done if each.offset not in state.held and each.ref not in gone]
        self.notes = sum(each.event is not None and each.event.type in NOTES for each in rest)
        self.rest = [each for each in rest if each.event is None or each.event.type not in NOTES]
        self.corrections = corrections(done)
        self.folded: list[Event] = []
        self.things: dict[str, Thing] = {}
        for mended in _choices(self.corrections):
            self.folded = list(self._events(mended))
            self.things = things(self.folded)
            if not self.corrections or not self.differing():
                break

    def _events(self, mended: Mapping[str, Event]) -> Iterator[Event]:
        for each in self.rest:
            event = mended.get(each.ref, each.event)
            if event is not None:
                yield event

    def differing(self) -> list[str]:
        """The objects of which the processor remembers something else."""
        has = self.state.entities
        if has is None:
            return []
        refs = self.things.keys() | has.keys()
        return [ref for ref in refs if digest(self.things.get(ref, {})) != digest(has.get(ref, {}))]

    @property
    def is_forgotten(self) -> bool:
        """Whether the processor keeps no more of it than where its records lie."""
        return self.state.spans is not None

    def is_over(self) -> bool:
        """Whether something of it has ended, and nothing can that has not."""
        found = {_has_ended(ref, thing) for ref, thing in self.things.items()}
        return True in found and False not in found

    def unreached(self) -> list[str]:
        """The records that lie where the processor would not look for them, were there news of the case."""
        if self.state.spans is None:
            return []
        opened = itertools.dropwhile(lambda each: each.event is not None and each.event.type == IGNORED, self.filed)
        mine = [each for each in opened if each.offset <= self.state.offset]
        return [f"{self.name}: {each.offset}" for each in mine if not _is_within(each.offset, self.state.spans)]

    def out_of_turn(self) -> list[str]:
        """Events that were folded although one in front of them is parked."""
        first = min((each.offset for each in self.held), default=None)
        return [each.ref for each in self.rest if first is not None and each.offset > first]

    def unaccounted(self) -> list[str]:
        """Unreadable records that the processor went past."""
        return [each.ref for each in self.rest if each.event is None and each.ref not in self.corrections]


def _has_ended(ref: str, thing: Thing) -> bool | None:
    """None for a kind of object that no event ends."""
    if thing["stage"] == DELETED:
        return True
    ends = ENDS.get(ref.partition("/")[0])
    return thing["stage"] in ends if ends is not None else None


def _is_within(offset: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(first <= offset <= last for first, last in spans)


def corrections(filed: Sequence[Filed]) -> dict[str, list[Event]]:
    """What a person has put in the place of parked records, each word of it, the last first."""
    found: dict[str, list[Event]] = {}
    for each in filed:
        event = corrected(each.event) if each.event is not None else None
        if each.event is not None and event is not None:
            wanted = str(each.event.data.get("parked"))
            found.setdefault(wanted if wanted.startswith("record/") else f"event/{wanted}", []).insert(0, event)
    return found


def _choices(found: Mapping[str, Sequence[Event]]) -> Iterator[dict[str, Event]]:
    """What may have been read in the place of what: a correction that came after the try it was meant for changed nothing."""
    words = [[*((ref, event) for event in events), (ref, None)] for ref, events in found.items()]
    for chosen in itertools.islice(itertools.product(*words), CHOICES):
        yield {ref: event for ref, event in chosen if event is not None}
