"""What is new in Redmine: every transition of every issue, from the issues' journals.

How far the issues of a Redmine were read, as text in the ledger. Pure.

Redmine stamps changes with whole seconds, before their transaction is committed. So each poll lists a window before the
newest change again, and the cursor remembers the issues in it: how far the journal of each was told, and whether it can
still gain a change that its time of change does not show. All times are Redmine's, as text that sorts: `2026-01-05T09:00:00Z`.

A time that our clock has not reached moves no cursor, as the clock over there may have been wrong for one change only: such
an issue is told, and listed again until its time has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import orjson

from connectors.redmine.client import PAGE, RedmineClient, Row
from connectors.redmine.mapping import IssueHistory, Stages, last_entry, retold, untold, users_of
from connectors.redmine.people import RedmineUsers
from connectors.redmine.settings import Names, RedmineSettings
from hub.kit.connector import Fact, Page, Unmapped
from hub.runtime.clock import Clock
from schemas.envelope import parse_time

SETTLES = 10.0
"""Seconds by our clock after which a change with the same second as one that we saw is surely committed."""


@dataclass(frozen=True)
class KnownIssue:
    """An issue as it was last looked into."""

    changed: str
    journal: int
    """The last entry of its journal that was told; 0 before the first."""
    opens: float | None
    """When we first saw this `changed`, by our clock; None once the issue was looked into long enough after that."""

    @classmethod
    def read(cls, changed: str, journal: int, now: float, before: Self | None) -> Self:
        """What is known after looking into it now."""
        first = before.opens if before and before.changed == changed else now
        return cls(changed, journal, None if first is None or now - first >= SETTLES else first)


@dataclass(frozen=True)
class IssueCursor:
    """Where reading goes on."""

    since: str
    """Issues changed at this second or later are yet to be listed."""
    floor: str
    """Journal entries of this second or later are told, unless `known` says that they were; it stands still while catching up."""
    run: str | None = None
    """While catching up over several pages: the newest change that there was when this began. The next window ends there."""
    after: int | None = None
    """Within the one second `since` so many issues changed that they are listed by id: the last of them."""
    known: Mapping[int, KnownIssue] = field(default_factory=dict)

    @classmethod
    def start(cls, time: str, known: Mapping[int, KnownIssue] | None = None) -> Self:
        """Read what comes from this second on, but for what is known."""
        return cls(time, time, known=known or {})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `text` wrote."""
        kept = orjson.loads(text)
        known = {int(id_): KnownIssue(*values) for id_, values in kept["known"].items()}
        return cls(kept["since"], kept["floor"], kept["run"], kept["after"], known)

    def bounded(self, now: str) -> Self:
        """The cursor for reading on: one that stands ahead of our clock comes back. While catching up it may stand there."""
        if self.run is not None or self.after is not None or self.since <= now:
            return self
        return replace(self, since=now, floor=min(self.floor, now))

    def text(self) -> str:
        """The same cursor always writes the same text."""
        known = {str(id_): [one.changed, one.journal, one.opens] for id_, one in sorted(self.known.items())}
        place = {"since": self.since, "floor": self.floor, "run": self.run, "after": self.after}
        return orjson.dumps({**place, "known": known}).decode()

    def settled(self, id_: int, changed: str) -> bool:
        """Whether all that this state of the issue can hold was told, or lies before what is told at all."""
        known = self.known.get(id_)
        if known is None:
            return changed < self.floor
        return known.changed == changed and known.opens is None

    def told(self, id_: int) -> tuple[str, int]:
        """What of an issue's journal is to be told: entries from this second on with an id larger than this."""
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
        """The cursor after a page: the issues it listed, and what is known now of those that were looked into.

        `full` says that the page held as many as Redmine gives, so that more may be waiting; then `run` is set already.
        Only changes up to `now`, by our clock, say how far it may go.
        What is committed late, behind a page that was listed before, is in the window that ends where the run began.
        """
        newest = self.run or max((time for row in listed if (time := str(row["updated_on"])) <= now), default=None)
        oldest = shifted(newest, -window) if newest else self.since
        known = {id_: one for id_, one in {**self.known, **read}.items() if one.changed >= oldest}
        if full:
            return replace(self._onwards(listed), known=known)
        if self.after is not None:
            return replace(self, since=shifted(self.since, 1), after=None, known=known)
        return replace(self, since=oldest, floor=max(self.floor, oldest), run=None, known=known)

    def _onwards(self, listed: Sequence[Mapping[str, Any]]) -> Self:
        """Where the page after a full one begins."""
        last = listed[-1]
        if self.after is not None:
            return replace(self, after=int(last["id"]))
        if last["updated_on"] > self.since:
            return replace(self, since=str(last["updated_on"]))
        return replace(self, after=0)


def shifted(time: str, seconds: float) -> str:
    """A time so many seconds later."""
    return written(parse_time(time) + timedelta(seconds=seconds))


def written(time: datetime) -> str:
    """A time as Redmine writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


ISSUES = "issues"
BEGINNING = "1970-01-01T00:00:00Z"


class RedmineSource:
    """Polls one Redmine: one stream, `issues`.

    A page looks into at most 100 changed issues, one request each, and tells their transitions in the order in which
    Redmine wrote them down; across pages that order holds for each issue. Without a cursor it tells what comes after the
    newest change of all, or after `since`.
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
        """As `Polls.poll`. The key is tried first: with a wrong one Redmine would show us the public part as if it were all."""
        self._client.me()
        began = self._clock.now()
        at = IssueCursor.from_text(cursor).bounded(written(began)) if cursor else self._begin(written(began))
        at, listed = self._list(at, written(began))
        unread = [row for row in listed if not at.settled(row["id"], row["updated_on"])]
        now = self._clock.now().timestamp()
        issues = list(self._read(unread))
        full = len(listed) >= PAGE
        known, window = _known(issues, now, at.known), self._settings.overlap
        after = at.advance(listed, known, full=full, window=window, now=written(began))
        more = full or after.after != at.after
        return Page(self._told(issues, at), after.text(), more, None if more else _ahead(listed, began))

    def _begin(self, now: str) -> IssueCursor:
        """The cursor of one who was just connected: Redmine's newest change tells the time, unless our clock has not reached it.

        From the second of that change on, what is there already counts as told.
        """
        if self._settings.since is not None:
            return IssueCursor.start(written(self._settings.since))
        latest = self._client.latest()
        if latest is None:
            return IssueCursor.start(BEGINNING)
        since = min(latest["updated_on"], now)
        there = list(self._read(self._within(since, shifted(latest["updated_on"], 1))))
        return IssueCursor.start(since, _known(there, self._clock.now().timestamp(), {}))

    def _within(self, since: str, until: str) -> Iterator[Row]:
        after = 0
        while rows := self._client.changed_within(since, until, after):
            yield from rows
            after = rows[-1]["id"]

    def _list(self, at: IssueCursor, now: str) -> tuple[IssueCursor, list[Row]]:
        """A page; before the first of several the newest change of that moment is noted."""
        if at.after is not None:
            return at, self._client.changed_within(at.since, shifted(at.since, 1), at.after)
        listed = self._client.changed(at.since)
        if len(listed) < PAGE or at.run is not None or (latest := self._client.latest()) is None:
            return at, listed
        return replace(at, run=min(latest["updated_on"], now)), self._client.changed(at.since)

    def _read(self, listed: Iterable[Row]) -> Iterator[Row]:
        """The issues in full; one that was deleted or hidden since it was listed is passed over."""
        for row in listed:
            issue = self._client.issue(row["id"])
            if issue is not None:
                yield issue

    def _told(self, issues: Sequence[Row], at: IssueCursor) -> tuple[Fact | Unmapped, ...]:
        if not issues:
            return ()
        statuses = self._client.listed("issue_statuses")
        teller = IssueHistory(self._instance, self._stages(statuses), self._names.field, self._people.account)
        told = [each for issue in issues for each in self._each(teller, issue, statuses, at.told(issue["id"]))]
        return tuple(sorted(told, key=_place))

    def _each(
        self, teller: IssueHistory, issue: Row, statuses: Sequence[Row], since: tuple[str, int]
    ) -> Iterator[Fact | Unmapped]:
        """As the teller. An issue that cannot be told is kept once for each new entry of its journal, however often it is read."""
        for told in teller.told(issue, *since):
            if isinstance(told, Unmapped):
                if last_entry(issue) <= since[1]:
                    continue
                logins = {user: self._people.account(user) for user in users_of(issue)}
                told = replace(told, raw=untold(issue, statuses, logins, self._names.field, since))
            yield told

    def reread(self, raw: bytes) -> tuple[Fact | Unmapped, ...]:
        """As `Connector.reread`: an issue with all that its telling needs, as it was when it could not be told."""
        return retold(raw, self._instance, self._stages)

    def _stages(self, statuses: Sequence[Mapping[str, Any]]) -> Stages:
        return Stages.build(statuses, self._settings.started, self._settings.cancelled)


def _known(issues: Sequence[Row], now: float, before: Mapping[int, KnownIssue]) -> dict[int, KnownIssue]:
    """What is known of issues that were looked into at `now` or later."""
    return {
        issue["id"]: KnownIssue.read(issue["updated_on"], last_entry(issue), now, before.get(issue["id"]))
        for issue in issues
    }


def _ahead(listed: Sequence[Row], now: datetime) -> float:
    newest = max((parse_time(str(row["updated_on"])) for row in listed), default=now)
    return max(0.0, (newest - now).total_seconds())


def _place(told: Fact | Unmapped) -> int:
    """Redmine numbers journal entries as they come; what an issue was born with comes before all."""
    return int(told.version) if isinstance(told, Fact) else 0
