"""The timeline of rules: which rules decided which offsets of the log. Its events share one case, so they are totally ordered.

A *rule set* is every rule's name and digest, a *world* is what rules can read of people and calendar; a hash identifies each.
`hub.rules.announced` names the rule set and world in effect from now on; it follows the events that hold their texts.
`hub.rules.in_force` records for one partition the offset from which they really decided: a worker writes it before it publishes
any output of their decisions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import orjson
from pydantic import ValidationError

from hub.log.event_log import StoredRecord
from hub.log.sequences import sequence_of
from schemas.domains.hub import RULES_CASE, RuleChange, RulesAnnounced, RulesInForce, WorldChange
from schemas.envelope import Event
from schemas.registry import event_spec

RULE_CHANGED_TYPE, WORLD_CHANGED_TYPE, RULES_ANNOUNCED_TYPE, RULES_IN_FORCE_TYPE = (
    "hub.rule.changed",
    "hub.world.changed",
    "hub.rules.announced",
    "hub.rules.in_force",
)
RULE_EVENT_TYPES = frozenset({RULE_CHANGED_TYPE, WORLD_CHANGED_TYPE, RULES_ANNOUNCED_TYPE, RULES_IN_FORCE_TYPE})
RULES_KEY = RULES_CASE.encode()


class Sets(NamedTuple):
    """A rule set and a world, by their hashes: together they determine the decisions on an event."""

    ruleset: str
    world: str


@dataclass(frozen=True)
class Announced:
    """A `hub.rules.announced` event: the rules, people and calendar that a home announced."""

    id: str
    time: str
    sets: Sets
    rules: Mapping[str, str]
    """Rule → digest."""
    people: str
    calendar: str
    before: Mapping[int, int]
    """In the log's first announcement: partition → the offset before which the rules are unknown."""


@dataclass(frozen=True)
class InForce:
    """A `hub.rules.in_force` event: from this offset of a partition on, these sets decide."""

    id: str
    time: str
    partition: int
    from_offset: int
    sets: Sets
    previous: str | None = None
    doubt_to: int | None = None
    after: Mapping[str, int] = field(default_factory=dict)


class RuleText(NamedTuple):
    """A rule file's name and text at that time."""

    file: str
    text: str


class Span(NamedTuple):
    """A range of a partition, up to the next span's start. `sets` is None where the rules are unknown."""

    from_offset: int
    sets: Sets | None
    doubt_to: int | None = None
    after: Mapping[str, int] = MappingProxyType({})
    """Each outbox's last sequence before it. In a log that was rebuilt from the ledger offsets differ, sequences do not."""

    def reached_by(self, record: StoredRecord) -> bool:
        """Whether a record is in the span, or after it."""
        numbered = sequence_of(record.value) if self.after else None
        if numbered is None or numbered[0] not in self.after:
            return record.offset >= self.from_offset
        outbox, sequence = numbered
        return sequence > self.after[outbox]


def split_by_span(
    spans: Sequence[Span], records: Sequence[StoredRecord]
) -> Iterator[tuple[int, Sequence[StoredRecord]]]:
    """Split records of one partition by span: the index of the span, and its records.

    The index never decreases: a redelivered record after a span's start belongs to that span, where deduplication drops it.
    """
    at, begin = 0, 0
    for index, record in enumerate(records):
        reached = at
        while reached + 1 < len(spans) and spans[reached + 1].reached_by(record):
            reached += 1
        if reached != at:
            if begin < index:
                yield at, records[begin:index]
            at, begin = reached, index
    if begin < len(records):
        yield at, records[begin:]


class RuleTimeline:
    """The rule history read from the log so far. One thread adds events with `take`; any thread may read."""

    def __init__(self) -> None:
        self.rules: dict[str, RuleText] = {}
        """Digest → the first text with this digest."""
        self.world: dict[str, str] = {}
        """sha256 → text, of people and of calendars."""
        self._parts: dict[str, dict[int, str]] = {}
        self._logged: dict[str, Announced | InForce] = {}
        self._waiting: dict[str, Announced | InForce] = {}
        """Entries that are not in `hub.events` yet: they come after all logged ones."""

    def take(self, events: Iterable[Event], *, logged: bool) -> None:
        """Add events of the rules' case, in their order. `logged`: read from `hub.events`; else still on their way there."""
        for event in events:
            entry = self._entry(event)
            if entry is None:
                continue
            if logged:
                self._waiting.pop(entry.id, None)
                self._logged.setdefault(entry.id, entry)
            elif entry.id not in self._logged:
                self._waiting.setdefault(entry.id, entry)

    def _entry(self, event: Event) -> Announced | InForce | None:
        try:
            match event.type:
                case "hub.rule.changed":
                    self._text(RuleChange.model_validate(event.data))
                case "hub.world.changed":
                    self._world(WorldChange.model_validate(event.data))
                case "hub.rules.announced":
                    return _announced(event)
                case "hub.rules.in_force":
                    return _in_force(event)
        except (ValidationError, ValueError):
            return None  # written by a foreign producer
        return None

    def _text(self, change: RuleChange) -> None:
        if change.digest is None or change.text is None or change.digest in self.rules:
            return
        whole = self._whole(f"rule {change.digest}", change.text, change.part, change.parts)
        if whole is not None:
            self.rules[change.digest] = RuleText(change.file or "rules/?.yaml", whole)

    def _world(self, change: WorldChange) -> None:
        if change.value in self.world:
            return
        whole = self._whole(f"{change.what} {change.value}", change.text, change.part, change.parts)
        if whole is not None and sha256(whole) == change.value:
            self.world[change.value] = whole

    def _whole(self, name: str, text: str, part: int, parts: int) -> str | None:
        if parts == 1:
            return text
        found = self._parts.setdefault(name, {})
        found[part] = text
        if any(at not in found for at in range(1, parts + 1)):
            return None
        del self._parts[name]
        return "".join(found[at] for at in range(1, parts + 1))

    def _entries(self) -> list[Announced | InForce]:
        return [*self._logged.values(), *self._waiting.values()]

    def announcements(self) -> list[Announced]:
        """All announcements, the oldest first."""
        return [entry for entry in self._entries() if isinstance(entry, Announced)]

    def in_force(self, partition: int | None = None) -> list[InForce]:
        """All in-force entries, or those of one partition, in the order in which they were written."""
        found = [entry for entry in self._entries() if isinstance(entry, InForce)]
        return found if partition is None else [entry for entry in found if entry.partition == partition]

    @property
    def latest(self) -> Announced | None:
        """The last announcement."""
        return next(iter(reversed(self.announcements())), None)

    def announced(self, sets: Sets) -> Announced | None:
        """The announcement of these sets."""
        return next((entry for entry in self.announcements() if entry.sets == sets), None)

    def judged(self, partition: int, outbox: str, sequence: int) -> Sets | None:
        """The sets that decided the event with this sequence of an outbox; None where that is unknown."""
        found = None
        for entry in self.in_force(partition):
            if entry.from_offset == 0 or entry.after.get(outbox, sequence) < sequence:
                found = entry.sets
        return found

    def before(self, partition: int) -> int:
        """The offset before which the rules may be unknown."""
        first = self.announcements()[:1]
        return first[0].before.get(partition, 0) if first else 0

    def spans(self, partition: int) -> list[Span]:
        """The spans of a whole partition. A later in-force entry overrides earlier ones from its offset on."""
        return spans(self.in_force(partition))


def spans(entries: Sequence[InForce]) -> list[Span]:
    """As `RuleTimeline.spans`, of the entries of one partition."""
    found = [Span(0, None)]
    for entry in entries:
        while found and found[-1].from_offset >= entry.from_offset:
            found.pop()
        found.append(Span(entry.from_offset, entry.sets, entry.doubt_to, entry.after))
    return found


def cached_timeline(cache: Path) -> RuleTimeline:
    """The timeline as this home's worker last cached it, for readers without access to the log; empty without a valid cache."""
    timeline = RuleTimeline()
    try:
        stored = orjson.loads(cache.read_bytes())
        timeline.take([Event.model_validate(each) for each in stored["events"]], logged=True)
        timeline.take([Event.model_validate(each) for each in stored.get("waiting", ())], logged=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RuleTimeline()
    return timeline


def _announced(event: Event) -> Announced:
    data = RulesAnnounced.model_validate(event.data)
    before = {int(partition): offset for partition, offset in data.before.items()}
    if Sets(ruleset_of(data.rules), world_of(data.people, data.calendar)) != (data.ruleset, data.world):
        raise ValueError("its hashes are not those of what it names")
    sets = Sets(data.ruleset, data.world)
    return Announced(event.id, event.recordedtime, sets, data.rules, data.people, data.calendar, before)


def _in_force(event: Event) -> InForce:
    data = RulesInForce.model_validate(event.data)
    sets = Sets(data.ruleset, data.world)
    return InForce(
        event.id, event.recordedtime, data.partition, data.from_offset, sets, data.previous, data.doubt_to, data.after
    )


def ruleset_of(digests: Mapping[str, str]) -> str:
    """The hash of a rule set, from the digests of its rules."""
    return sha256(orjson.dumps(dict(digests), option=orjson.OPT_SORT_KEYS).decode())


def world_of(people: str, calendar: str) -> str:
    """The hash of a world, from the hashes of its people and calendar texts."""
    return sha256(f"{people}\n{calendar}")


def sha256(text: str) -> str:
    """The SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def rule_event(type_: str, id_: str, subject: str, now: str, data: Mapping[str, object]) -> Event:
    """An event of the rules' case."""
    return Event(
        id=id_,
        source="/hub/rules",
        type=type_,
        subject=subject,
        time=now,
        recordedtime=now,
        dataschema=event_spec(type_).dataschema,
        partitionkey=RULES_CASE,
        correlationid=RULES_CASE,
        data={name: value for name, value in data.items() if value is not None},
    )


def split_text(text: str, most: int) -> Iterator[tuple[int, int, str]]:
    """Split a text into parts of at most `most` characters: (number from 1, number of parts, part)."""
    parts = max(1, -(-len(text) // most))
    for at in range(parts):
        yield at + 1, parts, text[at * most : (at + 1) * most]
