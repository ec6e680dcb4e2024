"""What is new in Redmine: every transition of every issue, from the issues' journals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from connectors.redmine.client import PAGE, RedmineClient, Row
from connectors.redmine.cursor import Cursor, Known, shifted, written
from connectors.redmine.mapping import Stages, Teller, last_entry, retold, untold, users_of
from connectors.redmine.people import People
from connectors.redmine.settings import Names, RedmineSettings
from hub.clock import Clock
from hub.connector import Fact, Page, Unmapped
from schemas.event import moment

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
        people: People,
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
        at = Cursor.from_text(cursor).bounded(written(began)) if cursor else self._begin(written(began))
        at, listed = self._list(at, written(began))
        unread = [row for row in listed if not at.settled(row["id"], row["updated_on"])]
        now = self._clock.now().timestamp()
        issues = list(self._read(unread))
        full = len(listed) >= PAGE
        known, window = _known(issues, now, at.known), self._settings.overlap
        after = at.advance(listed, known, full=full, window=window, now=written(began))
        more = full or after.after != at.after
        return Page(self._told(issues, at), after.text(), more, None if more else _ahead(listed, began))

    def _begin(self, now: str) -> Cursor:
        """The cursor of one who was just connected: Redmine's newest change tells the time, unless our clock has not reached it.

        From the second of that change on, what is there already counts as told.
        """
        if self._settings.since is not None:
            return Cursor.start(written(self._settings.since))
        latest = self._client.latest()
        if latest is None:
            return Cursor.start(BEGINNING)
        since = min(latest["updated_on"], now)
        there = list(self._read(self._within(since, shifted(latest["updated_on"], 1))))
        return Cursor.start(since, _known(there, self._clock.now().timestamp(), {}))

    def _within(self, since: str, until: str) -> Iterator[Row]:
        after = 0
        while rows := self._client.changed_within(since, until, after):
            yield from rows
            after = rows[-1]["id"]

    def _list(self, at: Cursor, now: str) -> tuple[Cursor, list[Row]]:
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

    def _told(self, issues: Sequence[Row], at: Cursor) -> tuple[Fact | Unmapped, ...]:
        if not issues:
            return ()
        statuses = self._client.listed("issue_statuses")
        teller = Teller(self._instance, self._stages(statuses), self._names.field, self._people.account)
        told = [each for issue in issues for each in self._each(teller, issue, statuses, at.told(issue["id"]))]
        return tuple(sorted(told, key=_place))

    def _each(
        self, teller: Teller, issue: Row, statuses: Sequence[Row], since: tuple[str, int]
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


def _known(issues: Sequence[Row], now: float, before: Mapping[int, Known]) -> dict[int, Known]:
    """What is known of issues that were looked into at `now` or later."""
    return {
        issue["id"]: Known.read(issue["updated_on"], last_entry(issue), now, before.get(issue["id"]))
        for issue in issues
    }


def _ahead(listed: Sequence[Row], now: datetime) -> float:
    newest = max((moment(str(row["updated_on"])) for row in listed), default=now)
    return max(0.0, (newest - now).total_seconds())


def _place(told: Fact | Unmapped) -> int:
    """Redmine numbers journal entries as they come; what an issue was born with comes before all."""
    return int(told.version) if isinstance(told, Fact) else 0
