"""Checks that the log, folded under its own rules, gives exactly the requests that the ledger has.

Folds one partition at a time with its cases packed as the worker packs them, and holds nine bytes a request in memory. It may run
while the hub does: neither events folded since the snapshot nor requests in flight to the ledger count as findings.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from sqlalchemy import Connection, select

from hub.engine.case import Case
from hub.engine.step import StepRules
from hub.ledger import positions
from hub.ledger.commands import commands
from hub.ledger.parked import parked
from hub.log.event_log import EventLog, Outgoing, StoredRecord, read_to_end, record_at
from hub.processor.folding import fold_chunk, fold_record
from hub.processor.source import Chunk
from hub.processor.state import POSITION_KEY, PartitionState, read_position
from hub.replay.audit.report import Report
from hub.rules.book import RuleBook
from hub.rules.history import Sets, split_by_span
from schemas.topics import COMMANDS, EVENTS, STATE


@dataclass
class LedgerRequests:
    """The requests of the ledger, as sorted 64-bit id prefixes; `given` marks the requests that the log gives."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    given: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, conn: Connection) -> LedgerRequests:
        """All requests of a ledger."""
        rows = conn.execution_options(yield_per=10_000).execute(select(commands.c.id))
        numbers = array("Q", sorted(id_number(row.id) for row in rows))
        return cls(numbers, bytearray(len(numbers)))

    def mark_given(self, id_: str) -> bool:
        """Mark a request as given by the log; whether the ledger has it."""
        at = self._at(id_)
        if at is not None:
            self.given[at] = 1
        return at is not None

    def is_given(self, id_: str) -> bool:
        """Whether the log gives the request."""
        at = self._at(id_)
        return at is not None and bool(self.given[at])

    def _at(self, id_: str) -> int | None:
        wanted = id_number(id_)
        at = bisect_left(self.numbers, wanted)
        return at if at < len(self.numbers) and self.numbers[at] == wanted else None


def id_number(id_: str) -> int:
    """The first 64 bits of an id that is a UUID; of any other id its first 8 bytes."""
    try:
        return int(id_.replace("-", "")[:16], 16)
    except ValueError:
        return int.from_bytes(id_.encode()[:8].ljust(8, b"\0"), "big")


def compare(report: Report, log: EventLog, conn: Connection, book: RuleBook) -> None:
    """Report extra and missing requests. `conn` must be one snapshot, taken before the log is read."""
    folded = folded_offsets(log)
    recorded, parked_requests = LedgerRequests.of(conn), _parked(conn)
    waiting = _in_flight(log, positions.of_reader(conn, "executor", COMMANDS.name))
    replay = DecisionReplay(log, book, recorded, folded, waiting | parked_requests)
    for partition in sorted(log.ends(EVENTS.name)):
        replay.partition(partition)
    report.find("requests that the log's own rules give, and the ledger lacks", replay.missing, "ledger: commands")
    extra = _extra(conn, recorded, replay.lost)
    unknown = replay.of_unknown(extra)
    report.find(
        "requests that the log's own rules do not give",
        [f"{case}: {rule} {id_}" for id_, (case, rule, _) in extra.items() if id_ not in unknown],
        "hub.events",
    )
    report.count(
        requests_recorded=len(recorded.numbers),
        requests_given=sum(recorded.given),
        requests_of_unknown_rules=len(unknown),
        requests_of_lost_rules=len(recorded.numbers) - sum(recorded.given) - len(extra),
    )


def folded_offsets(log: EventLog) -> dict[int, int]:
    """Partition → the next offset of the processor: everything before it is folded, and its outputs are sent."""
    offsets: dict[int, int] = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            position = read_position(record.value) if record.key == POSITION_KEY else None
            if position is not None:
                offsets[record.partition] = max(offsets.get(record.partition, 0), position.next_offset)
    return offsets


def _parked(conn: Connection) -> set[str]:
    """Ids of requests that the executor could not accept, and parked by themselves."""
    refs = conn.execute(select(parked.c.ref).where(parked.c.kind == "command")).scalars()
    return {ref.removeprefix("command/") for ref in refs}


def _in_flight(log: EventLog, read_to: Mapping[int, int]) -> set[str]:
    starts = log.starts(COMMANDS.name)
    begin = {partition: max(start, read_to.get(partition, 0)) for partition, start in starts.items()}
    return {
        id_
        for batch in read_to_end(log, COMMANDS.name, begin)
        for record in batch
        for id_ in _ids(Outgoing(record.topic, record.key or b"", record.value))
    }


@dataclass
class PreviousRulesCases:
    """Cases as the previous rule set left them, in the part of a span in which either set may have been in force."""

    at: int
    cases: dict[bytes, Case | None] = field(default_factory=dict)


@dataclass
class DecisionReplay:
    """Folds partitions under the rules that were in force at each offset."""

    log: EventLog
    book: RuleBook
    recorded: LedgerRequests
    folded: Mapping[int, int]
    excused: set[str]
    """Ids of requests that need not be in the ledger: in flight, or parked."""
    missing: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Rules that can no longer be loaded: their requests cannot be derived."""

    def partition(self, number_: int) -> None:
        """Fold one partition, and check that the ledger has the requests that it gives."""
        state, spans = PartitionState(number_), self.book.history.spans(number_)
        start, previous = self.log.starts(EVENTS.name)[number_], None
        for batch in read_to_end(self.log, EVENTS.name, {number_: start}):
            for at, records in split_by_span(spans, batch):
                span, rules = spans[at], self.book.rules_of(spans[at].sets)
                self._note_lost(span.sets)
                before = spans[at - 1].sets if at else None
                doubtful = [r for r in records if r.offset < (span.doubt_to or 0)]
                if doubtful and before is not None:
                    previous = previous if previous is not None and previous.at == at else PreviousRulesCases(at)
                    self._allow(state, previous, doubtful, self.book.rules_of(before))
                self._fold(state, records, rules)

    def _fold(self, state: PartitionState, records: Sequence[StoredRecord], rules: StepRules) -> None:
        sure = self.folded.get(state.partition, 0)
        for group, is_sure in _split(records, sure):
            for id_ in self._given(state, group, rules):
                if not self.recorded.mark_given(id_) and is_sure and id_ not in self.excused:
                    self.missing.append(id_)

    def _allow(
        self, state: PartitionState, previous: PreviousRulesCases, records: Sequence[StoredRecord], rules: StepRules
    ) -> None:
        """Accept the requests of both rule sets for records of a span in which either may have been in force.

        Assumes that the previous set handled all of them so far; the cases that it changes are stored in `previous`.
        """
        for record in records:
            key, sent = record.key or b"", list[Outgoing]()
            if record.offset <= state.reflects(key):
                continue
            case = previous.cases[key] if key in previous.cases else state.get(key)
            done = fold_record(case, record, rules, lambda offsets: self._reread(state.partition, offsets), sent)
            previous.cases[key] = done.case or case
            for id_ in (id_ for each in sent for id_ in _ids(each)):
                self.recorded.mark_given(id_)

    def _given(self, state: PartitionState, records: Sequence[StoredRecord], rules: StepRules) -> Iterator[str]:
        if not records:
            return
        chunk = Chunk(state.partition, records, records[-1].offset + 1)
        folding = fold_chunk(chunk, state, rules, lambda offsets: self._reread(state.partition, offsets))
        for sent in folding.outputs:
            yield from _ids(sent)

    def _reread(self, partition: int, offsets: Sequence[int]) -> list[bytes]:
        return [record_at(self.log, EVENTS.name, partition, offset) for offset in offsets]

    def _note_lost(self, sets: Sets | None) -> None:
        made = self.book.made(sets) if sets is not None else None
        for error in made.lost if made is not None else ():
            self.lost.add(str(error.seen["rule"]))

    def of_unknown(self, extra: Mapping[str, tuple[str, str, str]]) -> set[str]:
        """Those of these requests whose causing event was folded under rules that are no longer on record."""
        causes: dict[str, list[str]] = {}
        for id_, (_, _, cause) in extra.items():
            causes.setdefault(cause, []).append(id_)
        of_unknown = set[str]()
        starts = self.log.starts(EVENTS.name)
        for partition in starts if causes else ():
            spans = self.book.history.spans(partition)
            unknown = {at for at, span in enumerate(spans) if span.sets is None or self.book.made(span.sets) is None}
            for batch in read_to_end(self.log, EVENTS.name, {partition: starts[partition]}) if unknown else ():
                for at, records in split_by_span(spans, batch):
                    for record in records if at in unknown else ():
                        of_unknown.update(causes.get(_event_id(record), ()))
        return of_unknown


def _split(records: Sequence[StoredRecord], offset: int) -> Iterable[tuple[Sequence[StoredRecord], bool]]:
    at = bisect_left([record.offset for record in records], offset)
    return [(part, is_sure) for part, is_sure in ((records[:at], True), (records[at:], False)) if part]


def _ids(sent: Outgoing) -> Iterator[str]:
    """The id of the command in an output record, if the record is a command."""
    if sent.topic != COMMANDS.name:
        return
    try:
        command = orjson.loads(sent.value or b"")
    except orjson.JSONDecodeError:
        return
    if isinstance(command, dict) and "record" not in command and isinstance(command.get("id"), str):
        yield command["id"]


def _event_id(record: StoredRecord) -> str:
    try:
        event = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return ""
    return str(event.get("id")) if isinstance(event, dict) else ""


def _extra(conn: Connection, recorded: LedgerRequests, lost: Container[str]) -> dict[str, tuple[str, str, str]]:
    """Id → (case, rule, id of the causing event) of ledger requests that the log does not give."""
    if all(recorded.given):
        return {}
    extra = {}
    rows = conn.execution_options(yield_per=1_000).execute(select(commands.c.id, commands.c.case_id, commands.c.body))
    for row in rows:
        if not recorded.is_given(row.id):
            command = orjson.loads(row.body)
            if command.get("rule") not in lost:
                extra[row.id] = (row.case_id, str(command.get("rule")), str(command.get("causationid")))
    return extra
