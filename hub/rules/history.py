"""Which rules judged which part of the log: told by the log's own events, all of one case and so in one order.

A *rule set* is every rule's name and digest, a *world* is what rules can read of people and calendar; both are named by their
hash. `hub.rules.announced` says which of them count from now on, behind the events that hold their texts. `hub.rules.in_force`
says for one partition from which offset on they really did: a worker writes it before it sends anything that they decided.
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

from hub.log.event_log import Stored
from hub.log.sequences import numbered
from schemas.domains.hub import RULES_CASE, RuleChange, RulesAnnounced, RulesInForce, WorldChange
from schemas.envelope import Event
from schemas.registry import event_spec

CHANGED, WORLD, ANNOUNCED, IN_FORCE = (
    "hub.rule.changed",
    "hub.world.changed",
    "hub.rules.announced",
    "hub.rules.in_force",
)
TYPES = frozenset({CHANGED, WORLD, ANNOUNCED, IN_FORCE})
KEY = RULES_CASE.encode()


class Sets(NamedTuple):
    """A rule set and a world, by their hashes: together they decide what follows from an event."""

    ruleset: str
    world: str


@dataclass(frozen=True)
class Announced:
    """What a home has announced."""

    id: str
    time: str
    sets: Sets
    rules: Mapping[str, str]
    """Rule → digest."""
    people: str
    calendar: str
    before: Mapping[int, int]
    """Of the log's first: partition → the offset before which rules judged that nobody knows any more."""


@dataclass(frozen=True)
class InForce:
    """From this offset of a partition on, these judge."""

    id: str
    time: str
    partition: int
    from_offset: int
    sets: Sets
    previous: str | None = None
    doubt_to: int | None = None
    after: Mapping[str, int] = field(default_factory=dict)


class RuleText(NamedTuple):
    """A rule file as it was."""

    file: str
    text: str


class Span(NamedTuple):
    """A stretch of a partition, to the next span's begin. `sets` None: nobody knows its rules any more."""

    from_offset: int
    sets: Sets | None
    doubt_to: int | None = None
    after: Mapping[str, int] = MappingProxyType({})
    """Each outbox's last sequence before it. In a log that was made anew from the ledger, offsets are others; sequences are not."""

    def reached_by(self, record: Stored) -> bool:
        """Whether a record lies in it, or behind it."""
        told = numbered(record.value) if self.after else None
        if told is None or told[0] not in self.after:
            return record.offset >= self.from_offset
        return told[1] > self.after[told[0]]


def cut(spans: Sequence[Span], records: Sequence[Stored]) -> Iterator[tuple[int, Sequence[Stored]]]:
    """Records of one partition by the spans that they lie in: the number of the span, and those.

    It only goes forward: a record that came again behind a span's begin is in that span, and comes to nothing there.
    """
    at, begin = 0, 0
    for index, record in enumerate(records):
        now = at
        while now + 1 < len(spans) and spans[now + 1].reached_by(record):
            now += 1
        if now != at:
            if begin < index:
                yield at, records[begin:index]
            at, begin = now, index
    if begin < len(records):
        yield at, records[begin:]


class RuleTimeline:
    """What the log has told so far. One thread tells it more; any may read."""

    def __init__(self) -> None:
        self.rules: dict[str, RuleText] = {}
        """Digest → text, the first that had this meaning."""
        self.world: dict[str, str] = {}
        """sha256 → text, of people and of calendars."""
        self._parts: dict[str, dict[int, str]] = {}
        self._logged: dict[str, Announced | InForce] = {}
        self._waiting: dict[str, Announced | InForce] = {}
        """What is on its way to `hub.events`: behind all that is there."""

    def take(self, events: Iterable[Event], *, logged: bool) -> None:
        """Note events of the rules' case, in their order. `logged`: as `hub.events` has them; else on their way there."""
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
            return None  # whoever wrote that is no worker of ours
        return None

    def _text(self, told: RuleChange) -> None:
        if told.digest is None or told.text is None or told.digest in self.rules:
            return
        whole = self._whole(f"rule {told.digest}", told.text, told.part, told.parts)
        if whole is not None:
            self.rules[told.digest] = RuleText(told.file or "rules/?.yaml", whole)

    def _world(self, told: WorldChange) -> None:
        if told.value in self.world:
            return
        whole = self._whole(f"{told.what} {told.value}", told.text, told.part, told.parts)
        if whole is not None and sha256(whole) == told.value:
            self.world[told.value] = whole

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
        """All of them, the oldest first."""
        return [entry for entry in self._entries() if isinstance(entry, Announced)]

    def in_force(self, partition: int | None = None) -> list[InForce]:
        """All of them, or those of one partition, in the order in which they were written."""
        found = [entry for entry in self._entries() if isinstance(entry, InForce)]
        return found if partition is None else [entry for entry in found if entry.partition == partition]

    @property
    def latest(self) -> Announced | None:
        """What was announced last."""
        return next(iter(reversed(self.announcements())), None)

    def announced(self, sets: Sets) -> Announced | None:
        """The announcement that says what these are."""
        return next((entry for entry in self.announcements() if entry.sets == sets), None)

    def judged(self, partition: int, outbox: str, sequence: int) -> Sets | None:
        """Which sets judged the event that has this place in an outbox; None where that cannot be told."""
        found = None
        for entry in self.in_force(partition):
            if entry.from_offset == 0 or entry.after.get(outbox, sequence) < sequence:
                found = entry.sets
        return found

    def before(self, partition: int) -> int:
        """The offset before which rules may have judged that nobody knows any more."""
        first = self.announcements()[:1]
        return first[0].before.get(partition, 0) if first else 0

    def spans(self, partition: int) -> list[Span]:
        """The partition's whole length: who judged what. The last word counts from its offset on, whatever was said before it."""
        return spans(self.in_force(partition))


def spans(entries: Sequence[InForce]) -> list[Span]:
    """As `RuleTimeline.spans`, of the entries of one partition."""
    found = [Span(0, None)]
    for entry in entries:
        while found and found[-1].from_offset >= entry.from_offset:
            found.pop()
        found.append(Span(entry.from_offset, entry.sets, entry.doubt_to, entry.after))
    return found


def kept(cache: Path) -> RuleTimeline:
    """The history as this home's worker has noted it last, for who cannot ask the log; empty where there is no sound note."""
    history = RuleTimeline()
    try:
        told = orjson.loads(cache.read_bytes())
        history.take([Event.model_validate(each) for each in told["events"]], logged=True)
        history.take([Event.model_validate(each) for each in told.get("waiting", ())], logged=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return RuleTimeline()
    return history


def _announced(event: Event) -> Announced:
    told = RulesAnnounced.model_validate(event.data)
    before = {int(partition): offset for partition, offset in told.before.items()}
    if Sets(ruleset_of(told.rules), world_of(told.people, told.calendar)) != (told.ruleset, told.world):
        raise ValueError("its hashes are not those of what it names")
    sets = Sets(told.ruleset, told.world)
    return Announced(event.id, event.recordedtime, sets, told.rules, told.people, told.calendar, before)


def _in_force(event: Event) -> InForce:
    told = RulesInForce.model_validate(event.data)
    sets = Sets(told.ruleset, told.world)
    return InForce(
        event.id, event.recordedtime, told.partition, told.from_offset, sets, told.previous, told.doubt_to, told.after
    )


def ruleset_of(digests: Mapping[str, str]) -> str:
    """The hash of a rule set, told from every rule's digest."""
    return sha256(orjson.dumps(dict(digests), option=orjson.OPT_SORT_KEYS).decode())


def world_of(people: str, calendar: str) -> str:
    """The hash of a world, told from those of its parts."""
    return sha256(f"{people}\n{calendar}")


def sha256(text: str) -> str:
    """Of a text."""
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


def parted(text: str, most: int) -> Iterator[tuple[int, int, str]]:
    """A text in parts of at most so many characters: (number from 1 on, how many, part)."""
    parts = max(1, -(-len(text) // most))
    for at in range(parts):
        yield at + 1, parts, text[at * most : (at + 1) * most]
