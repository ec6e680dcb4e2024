"""Polls Redmine for every transition of every issue, from the issues' journals; and the cursor of that stream.

A cursor is pure and is stored in the ledger as text. Redmine stamps changes with whole seconds, before their transaction is
committed. So each poll lists a window before the newest change again, and the cursor remembers the issues in it: how far the
journal of each was emitted, and whether it can still gain a change that leaves its time of change the same. All times are
Redmine's, as text that sorts: `2026-01-05T09:00:00Z`.

A time ahead of our clock moves no cursor, because Redmine's clock may have been wrong for one change only: the issue is
emitted, and listed again until our clock reaches its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import orjson

from connectors.redmine.client import PAGE_SIZE, RedmineClient, Row
from connectors.redmine.mapping import IssueHistory, Stages, dump_unmapped, last_entry, remap, users_of
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from hub.kit.connector import Fact, Page, Unmapped
from hub.runtime.clock import Clock
from schemas.envelope import parse_time

COMMIT_DELAY_S = 10.0
"""Seconds by our clock after which every change that carries the same second as one we have read is committed."""


@dataclass(frozen=True)
class KnownIssue:
    """An issue as it was last read."""

    changed: str
    journal: int
    """The last entry of its journal that was emitted; 0 before the first."""
    open_since: float | None
    """When we first read this `changed`, by our clock; None once the issue was read again long enough after that."""

    @classmethod
    def read(cls, changed: str, journal: int, now: float, before: Self | None) -> Self:
        """The state of an issue that was read at `now`; `before`: its state in the cursor."""
        first = before.open_since if before and before.changed == changed else now
        return cls(changed, journal, None if first is None or now - first >= COMMIT_DELAY_S else first)


@dataclass(frozen=True)
class IssueCursor:
    """The position from which the next page is read."""

    since: str
    """Issues changed at this second or later are yet to be listed."""
    floor: str
    """Journal entries of this second or later are emitted, unless `known` has them; it does not move while catching up."""
    run: str | None = None
    """While catching up over several pages: the newest change at the start of this run. The next window ends there."""
    after: int | None = None
    """Set when more issues than one page changed within the second `since`: they are listed by id, and this is the last one."""
    known: Mapping[int, KnownIssue] = field(default_factory=dict)

    @classmethod
    def start(cls, time: str, known: Mapping[int, KnownIssue] | None = None) -> Self:
        """A cursor that reads changes from this second on, except those in `known`."""
        return cls(time, time, known=known or {})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse what `text` wrote."""
        stored = orjson.loads(text)
        known = {int(id_): KnownIssue(*values) for id_, values in stored["known"].items()}
        return cls(stored["since"], stored["floor"], stored["run"], stored["after"], known)

    def bounded(self, now: str) -> Self:
        """The cursor to continue with: one ahead of our clock is moved back to `now`, except while it is catching up."""
        if self.run is not None or self.after is not None or self.since <= now:
            return self
        return replace(self, since=now, floor=min(self.floor, now))

    def text(self) -> str:
        """The cursor as text; equal cursors give equal text."""
        known = {str(id_): [each.changed, each.journal, each.open_since] for id_, each in sorted(self.known.items())}
        position = {"since": self.since, "floor": self.floor, "run": self.run, "after": self.after}
        return orjson.dumps({**position, "known": known}).decode()

    def settled(self, id_: int, changed: str) -> bool:
        """Whether this state of the issue needs no reading: everything in it was emitted, or it is older than the floor."""
        known = self.known.get(id_)
        if known is None:
            return changed < self.floor
        return known.changed == changed and known.open_since is None

    def journal_start(self, id_: int) -> tuple[str, int]:
        """Where to resume an issue's journal: the entries to emit are of this second or later and have a larger id than this."""
        known = self.known.get(id_)
        return ("", known.journal) if known else (self.floor, -1)

    def advance(
        self,
        listed: Sequence[Mapping[str, Any]],
        read: Mapping[int, KnownIssue],
        *,
        full: bool,
        window: float,
        now: str,
    ) -> Self:
        """The cursor after a page: `listed` are its issues, `read` the states of those that were read in full.

        `full`: the page had as many issues as Redmine returns at most, so more may be waiting; `run` is set already then.
        Only changes up to `now`, by our clock, move the cursor.
        A change that is committed late, behind a page that was listed before, is in the window that ends where the run began.
        """
        newest = self.run or max((time for row in listed if (time := str(row["updated_on"])) <= now), default=None)
        oldest = shift_time(newest, -window) if newest else self.since
        known = {id_: each for id_, each in {**self.known, **read}.items() if each.changed >= oldest}
        if full:
            return replace(self._next_page(listed), known=known)
        if self.after is not None:
            return replace(self, since=shift_time(self.since, 1), after=None, known=known)
        return replace(self, since=oldest, floor=max(self.floor, oldest), run=None, known=known)

    def _next_page(self, listed: Sequence[Mapping[str, Any]]) -> Self:
        """The cursor for the page after a full one."""
        last = listed[-1]
        if self.after is not None:
            return replace(self, after=int(last["id"]))
        if last["updated_on"] > self.since:
            return replace(self, since=str(last["updated_on"]))
        return replace(self, after=0)


def shift_time(time: str, seconds: float) -> str:
    """The time this many seconds later."""
    return redmine_time(parse_time(time) + timedelta(seconds=seconds))


def redmine_time(time: datetime) -> str:
    """Format a time as Redmine does."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ISSUES = "issues"
BEGINNING = "1970-01-01T00:00:00Z"


class RedmineSource:
    """Polls one Redmine: one stream, `issues`.

    A page reads at most 100 changed issues, one request each, and emits their transitions in the order in which Redmine
    recorded them; across pages that order holds for each issue. Without a cursor the stream starts after the newest change of
    all, or at the setting `since`.
    """

    def __init__(
        self,
        client: RedmineClient,
        instance: str,
        settings: RedmineSettings,
        names: Names,
        people: RedmineUsers,
        clock: Clock,
    ) -> None:
        self._client, self._instance, self._settings = client, instance, settings
        self._names, self._people, self._clock = names, people, clock

    @property
    def streams(self) -> tuple[str, ...]:
        return (ISSUES,)

    @property
    def interval(self) -> float:
        return self._settings.interval

    def poll(self, stream: str, cursor: str | None) -> Page:
        """As `PollingSource.poll`. It tests the key first: with a wrong one Redmine answers with its public part only."""
        self._client.me()
        began = self._clock.now()
        at = IssueCursor.from_text(cursor).bounded(redmine_time(began)) if cursor else self._begin(redmine_time(began))
        at, listed = self._list(at, redmine_time(began))
        unread = [row for row in listed if not at.settled(row["id"], row["updated_on"])]
        now = self._clock.now().timestamp()
        issues = list(self._read(unread))
        full = len(listed) >= PAGE_SIZE
        known, window = _known(issues, now, at.known), self._settings.overlap
        after = at.advance(listed, known, full=full, window=window, now=redmine_time(began))
        more = full or after.after != at.after
        return Page(self._facts(issues, at), after.text(), more, None if more else _ahead(listed, began))

    def _begin(self, now: str) -> IssueCursor:
        """The first cursor: it starts at Redmine's newest change, or at our clock's time if that is earlier.

        Issues that exist from that second on count as emitted.
        """
        if self._settings.since is not None:
            return IssueCursor.start(redmine_time(self._settings.since))
        latest = self._client.latest()
        if latest is None:
            return IssueCursor.start(BEGINNING)
        since = min(latest["updated_on"], now)
        existing = list(self._read(self._within(since, shift_time(latest["updated_on"], 1))))
        return IssueCursor.start(since, _known(existing, self._clock.now().timestamp(), {}))

    def _within(self, since: str, until: str) -> Iterator[Row]:
        after = 0
        while rows := self._client.changed_within(since, until, after):
            yield from rows
            after = rows[-1]["id"]

    def _list(self, at: IssueCursor, now: str) -> tuple[IssueCursor, list[Row]]:
        """A page of changed issues; before the first of several pages the cursor records the newest change at that time."""
        if at.after is not None:
            return at, self._client.changed_within(at.since, shift_time(at.since, 1), at.after)
        listed = self._client.changed(at.since)
        if len(listed) < PAGE_SIZE or at.run is not None or (latest := self._client.latest()) is None:
            return at, listed
        return replace(at, run=min(latest["updated_on"], now)), self._client.changed(at.since)

    def _read(self, listed: Iterable[Row]) -> Iterator[Row]:
        """The issues in full; one that was deleted or hidden since it was listed is skipped."""
        for row in listed:
            issue = self._client.issue(row["id"])
            if issue is not None:
                yield issue

    def _facts(self, issues: Sequence[Row], at: IssueCursor) -> tuple[Fact | Unmapped, ...]:
        if not issues:
            return ()
        statuses = self._client.listed("issue_statuses")
        mapper = IssueHistory(self._instance, self._stages(statuses), self._names.field, self._people.account)
        facts = [
            fact for issue in issues for fact in self._facts_of(mapper, issue, statuses, at.journal_start(issue["id"]))
        ]
        return tuple(sorted(facts, key=_sort_key))

    def _facts_of(
        self, mapper: IssueHistory, issue: Row, statuses: Sequence[Row], since: tuple[str, int]
    ) -> Iterator[Fact | Unmapped]:
        """The facts of one issue. An unmappable issue is parked once per new entry of its journal, however often it is read."""
        for fact in mapper.facts(issue, *since):
            if isinstance(fact, Unmapped):
                if last_entry(issue) <= since[1]:
                    continue
                logins = {user: self._people.account(user) for user in users_of(issue)}
                fact = replace(fact, raw=dump_unmapped(issue, statuses, logins, self._names.field, since))
            yield fact

    def reread(self, raw: bytes) -> tuple[Fact | Unmapped, ...]:
        """As `Connector.reread`: map again an issue that `dump_unmapped` wrote with all that its mapping needs."""
        return remap(raw, self._instance, self._stages)

    def _stages(self, statuses: Sequence[Mapping[str, Any]]) -> Stages:
        return Stages.build(statuses, self._settings.started, self._settings.cancelled)


def _known(issues: Sequence[Row], now: float, before: Mapping[int, KnownIssue]) -> dict[int, KnownIssue]:
    """Issue id → its state, for issues that were read at `now` or later."""
    return {
        issue["id"]: KnownIssue.read(issue["updated_on"], last_entry(issue), now, before.get(issue["id"]))
        for issue in issues
    }


def _ahead(listed: Sequence[Row], now: datetime) -> float:
    newest = max((parse_time(str(row["updated_on"])) for row in listed), default=now)
    return max(0.0, (newest - now).total_seconds())


def _sort_key(fact: Fact | Unmapped) -> int:
    """Redmine numbers journal entries in order of arrival; an issue's creation sorts first."""
    return int(fact.version) if isinstance(fact, Fact) else 0
