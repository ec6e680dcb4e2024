"""Polls Tryton for changes: every revision of an opportunity, the latest state of a project or task; and the streams' cursors.

A cursor is pure and is stored in the ledger as text. Tryton stamps a change when its transaction starts, so a late commit
appears in the past. Each poll therefore reads again a window before the newest change it has read, and the cursor remembers
the revisions in that window that were emitted. A time ahead of our clock moves no cursor, because the server's clock may have
been wrong for one change only: the record is emitted, and read again until our clock reaches its time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Self

import orjson

from connectors.tryton.client import Domain, Row, TrytonClient
from connectors.tryton.mapping import (
    OPPORTUNITY_FIELDS,
    WORK_FIELDS,
    changed_at,
    from_micros,
    history_facts,
    is_done,
    to_micros,
    work_facts,
)
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Fact, Page
from hub.runtime.clock import Clock

MAX_DONE_WORKS = 5000
"""How many finished works a cursor remembers. Reopening one that has dropped out of the list emits no `reopened` event."""

EmittedRevisions = Mapping[int, frozenset[int]]
"""Record id → its revisions that were emitted, each as microseconds since 1970."""


@dataclass(frozen=True)
class StreamCursor:
    """How far one stream was read. All times are microseconds since 1970, UTC, by the server's clock."""

    start: int = 0
    """Revisions up to this time precede the connection and are never emitted."""
    floor: int = 0
    """Every change up to this time was emitted, except late commits in the window before it."""
    at: tuple[int, int] | None = None
    """While catching up: time and id of the last record read; the floor does not move until the stream has caught up."""
    emitted: EmittedRevisions = field(default_factory=dict)
    done: tuple[int, ...] = ()
    """Works that were done when last read, the latest last."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse what `text` wrote."""
        stored = orjson.loads(text)
        return cls(
            start=stored["start"],
            floor=stored["floor"],
            at=tuple(stored["at"]) if stored["at"] else None,
            emitted={int(id_): frozenset(revisions) for id_, revisions in stored["told"].items()},
            done=tuple(stored["done"]),
        )

    def text(self) -> str:
        """The cursor as text; equal cursors give equal text."""
        stored = {
            "start": self.start,
            "floor": self.floor,
            "at": self.at,
            "told": {str(id_): sorted(revisions) for id_, revisions in sorted(self.emitted.items())},
            "done": self.done,
        }
        return orjson.dumps(stored).decode()

    def after(self, window: int) -> tuple[int, int]:
        """The time and id after which the next page begins."""
        return self.at or (self.since(window), 0)

    def since(self, window: int) -> int:
        """The earliest revision that may still have to be emitted."""
        return max(self.start + 1, self.floor - window, 0)

    def has_emitted(self, id_: int, revision: int) -> bool:
        """Whether this revision of this record was emitted."""
        return revision in self.emitted.get(id_, frozenset())

    def pending(self, id_: int, revisions: Iterable[int], window: int) -> list[int]:
        """Those of a record's revisions that are still to be emitted, in the order given."""
        since = self.since(window)
        return [revision for revision in revisions if revision >= since and not self.has_emitted(id_, revision)]

    def bounded(self, now: int) -> Self:
        """The cursor to continue with: a floor ahead of our clock is moved back to `now`."""
        return self if self.floor <= now else replace(self, floor=now, start=min(self.start, now))

    def advance(
        self, at: tuple[int, int] | None, emitted: EmittedRevisions, *, more: bool, window: int, now: int
    ) -> Self:
        """The cursor after a page that read records up to `at` (None: there was none) and emitted these revisions.

        `more`: records after `at` are waiting. Only changes up to `now`, by our clock, move the floor.
        """
        position = max((time for time in self._change_times(at, emitted) if time <= now), default=self.floor)
        ids = {*self.emitted, *emitted}
        merged = {id_: self.emitted.get(id_, frozenset()) | emitted.get(id_, frozenset()) for id_ in ids}
        oldest = position - window
        recent = {id_: frozenset(each for each in revisions if each >= oldest) for id_, revisions in merged.items()}
        recent = {id_: revisions for id_, revisions in recent.items() if revisions}
        if more:
            return replace(self, at=at, emitted=recent)
        return replace(self, at=None, floor=max(self.floor, position), emitted=recent)

    def _change_times(self, at: tuple[int, int] | None, emitted: EmittedRevisions) -> Iterator[int]:
        """The times of the changes that this page and the page before read."""
        yield from (position[0] for position in (at, self.at) if position is not None)
        yield from (revision for revisions in emitted.values() for revision in revisions)

    def with_done(self, finished: Iterable[int], reopened: Iterable[int]) -> Self:
        """The cursor that records these works as done, and those as open."""
        newly, open_ = dict.fromkeys(finished), set(reopened)
        unchanged = [id_ for id_ in self.done if id_ not in newly and id_ not in open_]
        return replace(self, done=tuple([*unchanged, *newly][-MAX_DONE_WORKS:]))


RECORDS_PER_PAGE = 25
"""How many changed records one page covers."""
TIME_FIELDS = ("create_date", "write_date")
MODELS = {"opportunities": "sale.opportunity", "works": "project.work"}
DONE_FILTER: Domain = ["status.progress", "=", 1.0]


class TrytonSource:
    """Polls one Tryton. Two streams, `opportunities` and `works`, each oldest first.

    Without a cursor a stream starts at the next change of each record, or with `from_beginning` at its first.
    """

    def __init__(
        self,
        client: TrytonClient,
        instance: str,
        clock: Clock,
        *,
        interval: float,
        window: float,
        from_beginning: bool,
    ) -> None:
        self._client, self._instance, self._clock = client, instance, clock
        self._interval, self._window = interval, int(window * 1_000_000)
        self._from_beginning = from_beginning

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(MODELS)

    @property
    def interval(self) -> float:
        return self._interval

    def poll(self, stream: str, cursor: str | None) -> Page:
        """As `PollingSource.poll`. Raises FatalError HUB-E4103 when the user may not read the model."""
        try:
            at = StreamCursor.from_text(cursor).bounded(self._now()) if cursor else self._begin(stream)
            return self._opportunities(at) if stream == "opportunities" else self._works(at)
        except RejectedError as refused:
            raise FatalError(
                "HUB-E4103",
                instance=self._instance,
                login=self._client.login,
                model=MODELS[stream],
                reason=refused.seen.get("reason", ""),
            ) from refused

    def _begin(self, stream: str) -> StreamCursor:
        """The first cursor: it starts at the server's newest change, or at our clock's time if that is earlier."""
        if self._from_beginning:
            return StreamCursor()
        model = MODELS[stream]
        newest = [
            self._client.search(model, [[stamp, "!=", None]], TIME_FIELDS, order=((stamp, "DESC"),), limit=1)
            for stamp in TIME_FIELDS
        ]
        start = min(max((to_micros(changed_at(row)) for rows in newest for row in rows), default=0), self._now())
        cursor = StreamCursor(start=start, floor=start, emitted=self._existing(model, start))
        if stream == "opportunities":
            return cursor
        before = ["OR", [["write_date", "<=", from_micros(start)]], [["write_date", "=", None]]]
        order = (("write_date", "DESC NULLS LAST"), ("id", "DESC"))
        done = self._client.search(model, [DONE_FILTER, before], ["id"], order=order, limit=MAX_DONE_WORKS)
        return cursor.with_done((row["id"] for row in reversed(done)), ())

    def _existing(self, model: str, start: int) -> dict[int, frozenset[int]]:
        """Existing revisions whose time is after the start: like those before it, they are not emitted."""
        after = (from_micros(start + 1), 0)
        rows = [row for stamp in TIME_FIELDS for row in self._client.by_time(model, stamp, [], after, TIME_FIELDS)]
        ids = sorted({row["id"] for row in rows})
        if model != "sale.opportunity":
            return {row["id"]: frozenset({to_micros(row["create_date"]), to_micros(changed_at(row))}) for row in rows}
        histories = self._client.revisions(model, ids) if ids else {}
        return {id_: frozenset(map(to_micros, times)) for id_, times in histories.items()}

    def _now(self) -> int:
        return to_micros(self._clock.now().astimezone(UTC).replace(tzinfo=None))

    def _opportunities(self, cursor: StreamCursor) -> Page:
        changed, more = self._changed("sale.opportunity", cursor, TIME_FIELDS)
        if not changed:
            return self._page([], cursor, changed, {}, more=more)
        histories = self._histories(changed)
        pending = {
            id_: frozenset(cursor.pending(id_, map(to_micros, times), self._window)) for id_, times in histories.items()
        }
        rows = self._states({id_: _with_previous(times, pending[id_]) for id_, times in histories.items()})
        logins = self._logins({row["employee"] for states in rows.values() for row in states if row["employee"]})
        facts = [
            fact for id_, states in rows.items() for fact in history_facts(self._instance, states, pending[id_], logins)
        ]
        return self._page(facts, cursor, changed, pending, more=more)

    def _histories(self, changed: list[Row]) -> dict[int, list[datetime]]:
        """The revisions of these records up to the listed one; the next poll reads later ones, and deletions too."""
        listed = {row["id"]: changed_at(row) for row in changed}
        histories = self._client.revisions("sale.opportunity", list(listed))
        return {id_: [time for time in times if time <= listed[id_]] for id_, times in histories.items()}

    def _works(self, cursor: StreamCursor) -> Page:
        changed, more = self._changed("project.work", cursor, WORK_FIELDS)
        emitted = {row["id"]: frozenset({to_micros(row["create_date"]), to_micros(changed_at(row))}) for row in changed}
        created = [
            row["id"] for row in changed if cursor.pending(row["id"], [to_micros(row["create_date"])], self._window)
        ]
        facts = list(work_facts(self._instance, changed, cursor.done, created))
        finished = [row["id"] for row in changed if is_done(row)]
        cursor = cursor.with_done(finished, (row["id"] for row in changed if not is_done(row)))
        return self._page(facts, cursor, changed, emitted, more=more)

    def _page(
        self,
        facts: list[Fact],
        cursor: StreamCursor,
        changed: list[Row],
        emitted: EmittedRevisions,
        *,
        more: bool,
    ) -> Page:
        at = _sort_key(changed[-1]) if changed else None
        facts.sort(key=lambda fact: fact.time)
        now = self._now()
        after = cursor.advance(at, emitted, more=more, window=self._window, now=now)
        ahead = max(0, max((time for revisions in after.emitted.values() for time in revisions), default=0) - now)
        return Page(tuple(facts), after.text(), more, None if more else ahead / 1_000_000)

    def _changed(self, model: str, cursor: StreamCursor, fields: Sequence[str]) -> tuple[list[Row], bool]:
        """Records with a change that was not emitted, ordered by the time of their last change; and whether there are more.

        A record that was never written has no write_date, so two orders are merged; one that is written between the two
        queries appears in both, and the later row replaces the earlier.
        """
        micros, id_ = cursor.after(self._window)
        after = (from_micros(micros), id_)
        created = self._client.by_time(model, "create_date", [["write_date", "=", None]], after, fields)
        written = self._client.by_time(model, "write_date", [], after, fields)
        found: dict[int, Row] = {}
        for row in heapq.merge(created, written, key=_sort_key):
            if cursor.has_emitted(row["id"], to_micros(changed_at(row))):
                continue
            if len(found) == RECORDS_PER_PAGE:
                return list(found.values()), True
            found.pop(row["id"], None)
            found[row["id"]] = row
        return list(found.values()), False

    def _states(self, wanted: Mapping[int, Iterable[datetime]]) -> dict[int, list[Row]]:
        """Each record's state at these times, oldest first. A record that was deleted by then has no state."""
        ids_at: dict[datetime, list[int]] = {}
        for id_, times in wanted.items():
            for time in times:
                ids_at.setdefault(time, []).append(id_)
        states: dict[int, list[Row]] = {id_: [] for id_ in wanted}
        for time in sorted(ids_at):
            for row in self._client.read("sale.opportunity", ids_at[time], OPPORTUNITY_FIELDS, time):
                states[row["id"]].append(row)
        return states

    def _logins(self, employees: set[int]) -> dict[int, str]:
        """Employee id → login: the first user of an employee with several; an employee without a user is left out."""
        if not employees:
            return {}
        domain = [["employees", "in", sorted(employees)], ["active", "in", [True, False]]]
        users = self._client.search("res.user", domain, ["login", "employees"])
        return {employee: user["login"] for user in reversed(users) for employee in user["employees"]}


def _sort_key(row: Row) -> tuple[int, int]:
    return to_micros(changed_at(row)), row["id"]


def _with_previous(times: list[datetime], pending: frozenset[int]) -> list[datetime]:
    """The times of the pending revisions, and of the one before each: a transition needs both sides."""
    pairs = zip([None, *times], times, strict=False)
    return sorted({time for before, now in pairs if to_micros(now) in pending for time in (before, now) if time})
