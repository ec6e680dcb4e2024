"""The log, folded under its own rules, gives every request that the ledger has, and no more.

One partition at a time, its cases packed as the worker packs them; of each request nine bytes are kept in memory. It may run while
the hub does: what is folded since is no finding, nor is what is on its way to the ledger.
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
from hub.log.event_log import EventLog, Outgoing, Stored, read_to_end, record_at
from hub.processor.folding import fold_chunk, followed
from hub.processor.source import Chunk
from hub.processor.state import PLACE, PartitionState, read_place
from hub.replay.audit.report import Report
from hub.rules.book import RuleBook
from hub.rules.history import Sets, cut
from schemas.topics import COMMANDS, EVENTS, STATE


@dataclass
class LedgerRequests:
    """The requests of the ledger, by a number of each id; `given` marks those that the log gives."""

    numbers: array[int] = field(default_factory=lambda: array("Q"))
    given: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, conn: Connection) -> LedgerRequests:
        """All that a ledger has."""
        rows = conn.execution_options(yield_per=10_000).execute(select(commands.c.id))
        found = array("Q", sorted(number(row.id) for row in rows))
        return cls(found, bytearray(len(found)))

    def has(self, id_: str) -> bool:
        """Whether the ledger has it; from now on it counts as given."""
        at = self._at(id_)
        if at is not None:
            self.given[at] = 1
        return at is not None

    def is_given(self, id_: str) -> bool:
        """Whether the log gives it."""
        at = self._at(id_)
        return at is not None and bool(self.given[at])

    def _at(self, id_: str) -> int | None:
        wanted = number(id_)
        at = bisect_left(self.numbers, wanted)
        return at if at < len(self.numbers) and self.numbers[at] == wanted else None


def number(id_: str) -> int:
    """The first 64 bits of an id, which is a uuid."""
    try:
        return int(id_.replace("-", "")[:16], 16)
    except ValueError:
        return int.from_bytes(id_.encode()[:8].ljust(8, b"\0"), "big")


def compare(report: Report, log: EventLog, conn: Connection, book: RuleBook) -> None:
    """Note in `report` which requests are too many and which are missing. `conn` must be one look, taken before the log is read."""
    folded = places(log)
    recorded, aside = LedgerRequests.of(conn), _aside(conn)
    waiting = _on_their_way(log, positions.of_reader(conn, "executor", COMMANDS.name))
    judged = Judging(log, book, recorded, folded, waiting | aside)
    for partition in sorted(log.ends(EVENTS.name)):
        judged.partition(partition)
    report.find("requests that the log's own rules give, and the ledger lacks", judged.missing, "ledger: commands")
    extra = _too_many(conn, recorded, judged.lost)
    unknown = judged.of_unknown(extra)
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


def places(log: EventLog) -> dict[int, int]:
    """Partition → how far the processor has folded it, and sent what followed."""
    found: dict[int, int] = {}
    for batch in read_to_end(log, STATE.name, log.starts(STATE.name)):
        for record in batch:
            place = read_place(record.value) if record.key == PLACE else None
            if place is not None:
                found[record.partition] = max(found.get(record.partition, 0), place.next_offset)
    return found


def _aside(conn: Connection) -> set[str]:
    """Requests that could not be taken in, and are parked by themselves."""
    found = conn.execute(select(parked.c.ref).where(parked.c.kind == "command")).scalars()
    return {ref.removeprefix("command/") for ref in found}


def _on_their_way(log: EventLog, read_to: Mapping[int, int]) -> set[str]:
    starts = log.starts(COMMANDS.name)
    begin = {partition: max(start, read_to.get(partition, 0)) for partition, start in starts.items()}
    return {
        id_
        for batch in read_to_end(log, COMMANDS.name, begin)
        for record in batch
        for id_ in _ids(Outgoing(record.topic, record.key or b"", record.value))
    }


@dataclass
class Aside:
    """Cases as the set before has left them, in the doubtful part of a span."""

    at: int
    cases: dict[bytes, Case | None] = field(default_factory=dict)


@dataclass
class Judging:
    """Folds partitions under the rules that were in force."""

    log: EventLog
    book: RuleBook
    recorded: LedgerRequests
    folded: Mapping[int, int]
    excused: set[str]
    """Requests that need not be in the ledger."""
    missing: list[str] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Rules that cannot be made any more: what they asked for cannot be told."""

    def partition(self, number_: int) -> None:
        """Fold one, and see whether the ledger has what it gives."""
        state, spans = PartitionState(number_), self.book.history.spans(number_)
        start, aside = self.log.starts(EVENTS.name)[number_], None
        for batch in read_to_end(self.log, EVENTS.name, {number_: start}):
            for at, records in cut(spans, batch):
                span, rules = spans[at], self.book.rules_of(spans[at].sets)
                self._note_lost(span.sets)
                before = spans[at - 1].sets if at else None
                doubtful = [r for r in records if r.offset < (span.doubt_to or 0)]
                if doubtful and before is not None:
                    aside = aside if aside is not None and aside.at == at else Aside(at)
                    self._allow(state, aside, doubtful, self.book.rules_of(before))
                self._fold(state, records, rules)

    def _fold(self, state: PartitionState, records: Sequence[Stored], rules: StepRules) -> None:
        sure = self.folded.get(state.partition, 0)
        for group, is_sure in _split(records, sure):
            for id_ in self._given(state, group, rules):
                if not self.recorded.has(id_) and is_sure and id_ not in self.excused:
                    self.missing.append(id_)

    def _allow(self, state: PartitionState, aside: Aside, records: Sequence[Stored], rules: StepRules) -> None:
        """Records that two sets may have judged: what either gives may have been asked for.

        The set before is taken to have judged all of them so far; whatever it has changed in a case is kept aside.
        """
        for record in records:
            key, sent = record.key or b"", list[Outgoing]()
            if record.offset <= state.reflects(key):
                continue
            case = aside.cases[key] if key in aside.cases else state.get(key)
            done = followed(case, record, rules, lambda offsets: self._reread(state.partition, offsets), sent)
            aside.cases[key] = done.case or case
            for id_ in (id_ for each in sent for id_ in _ids(each)):
                self.recorded.has(id_)

    def _given(self, state: PartitionState, records: Sequence[Stored], rules: StepRules) -> Iterator[str]:
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
        """Of these requests those that an event asked for whose rules nobody knows any more."""
        causes: dict[str, list[str]] = {}
        for id_, (_, _, cause) in extra.items():
            causes.setdefault(cause, []).append(id_)
        found = set[str]()
        starts = self.log.starts(EVENTS.name)
        for partition in starts if causes else ():
            spans = self.book.history.spans(partition)
            unknown = {at for at, span in enumerate(spans) if span.sets is None or self.book.made(span.sets) is None}
            for batch in read_to_end(self.log, EVENTS.name, {partition: starts[partition]}) if unknown else ():
                for at, records in cut(spans, batch):
                    for record in records if at in unknown else ():
                        found.update(causes.get(_event_id(record), ()))
        return found


def _split(records: Sequence[Stored], offset: int) -> Iterable[tuple[Sequence[Stored], bool]]:
    at = bisect_left([record.offset for record in records], offset)
    return [(part, is_sure) for part, is_sure in ((records[:at], True), (records[at:], False)) if part]


def _ids(sent: Outgoing) -> Iterator[str]:
    """The command that a record asks for, if it is one."""
    if sent.topic != COMMANDS.name:
        return
    try:
        told = orjson.loads(sent.value or b"")
    except orjson.JSONDecodeError:
        return
    if isinstance(told, dict) and "record" not in told and isinstance(told.get("id"), str):
        yield told["id"]


def _event_id(record: Stored) -> str:
    try:
        told = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return ""
    return str(told.get("id")) if isinstance(told, dict) else ""


def _too_many(conn: Connection, recorded: LedgerRequests, lost: Container[str]) -> dict[str, tuple[str, str, str]]:
    """Id → (case, rule, the event that asked) of requests that the log does not give."""
    if all(recorded.given):
        return {}
    found = {}
    rows = conn.execution_options(yield_per=1_000).execute(select(commands.c.id, commands.c.case_id, commands.c.body))
    for row in rows:
        if not recorded.is_given(row.id):
            told = orjson.loads(row.body)
            if told.get("rule") not in lost:
                found[row.id] = (row.case_id, str(told.get("rule")), str(told.get("causationid")))
    return found
