"""What is new in Tryton: opportunities by every revision of theirs, projects and tasks by their latest state.

How far a stream of Tryton's records was read, as text in the ledger. Pure.

Tryton stamps a change when its transaction starts, so a late commit appears in the past. Each poll therefore reads again a
window before the newest change it has seen, and the cursor remembers the revisions in that window that were told. A time
that our clock has not reached moves no cursor, as the server's may have been wrong for one change only: such a record is
told, and looked at again until its time has come.
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
    history_facts,
    is_done,
    micros,
    moment,
    work_facts,
)
from hub.errors import FatalError, RejectedError
from hub.kit.connector import Fact, Page
from hub.runtime.clock import Clock

REMEMBERED = 5000
"""How many finished works a cursor knows. One that is reopened after so many later ones is not told as reopened."""

Told = Mapping[int, frozenset[int]]
"""Record id → the revisions of it that were told, each by its microseconds since 1970."""


@dataclass(frozen=True)
class StreamCursor:
    """All times are microseconds since 1970, UTC, by the server's clock."""

    start: int = 0
    """Revisions up to here are of before we were connected, and never told."""
    floor: int = 0
    """Every change up to here was told, save for late commits in the window before it."""
    at: tuple[int, int] | None = None
    """While catching up: time and id of the last record looked at; the floor stands still meanwhile."""
    told: Told = field(default_factory=dict)
    done: tuple[int, ...] = ()
    """Works that were done when last seen, the latest last."""

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `text` wrote."""
        kept = orjson.loads(text)
        return cls(
            start=kept["start"],
            floor=kept["floor"],
            at=tuple(kept["at"]) if kept["at"] else None,
            told={int(id_): frozenset(stamps) for id_, stamps in kept["told"].items()},
            done=tuple(kept["done"]),
        )

    def text(self) -> str:
        """The same cursor always writes the same text."""
        kept = {
            "start": self.start,
            "floor": self.floor,
            "at": self.at,
            "told": {str(id_): sorted(stamps) for id_, stamps in sorted(self.told.items())},
            "done": self.done,
        }
        return orjson.dumps(kept).decode()

    def after(self, window: int) -> tuple[int, int]:
        """The time and id that reading goes on after."""
        return self.at or (self.since(window), 0)

    def since(self, window: int) -> int:
        """The earliest revision that may not have been told."""
        return max(self.start + 1, self.floor - window, 0)

    def has_told(self, id_: int, revision: int) -> bool:
        """Whether this revision of this record was told."""
        return revision in self.told.get(id_, frozenset())

    def untold(self, id_: int, revisions: Iterable[int], window: int) -> list[int]:
        """Those of a record's revisions that are still to be told, in the order given."""
        since = self.since(window)
        return [revision for revision in revisions if revision >= since and not self.has_told(id_, revision)]

    def bounded(self, now: int) -> Self:
        """The cursor for reading on: one whose floor is ahead of our clock comes back."""
        return self if self.floor <= now else replace(self, floor=now, start=min(self.start, now))

    def advance(self, at: tuple[int, int] | None, told: Told, *, more: bool, window: int, now: int) -> Self:
        """The cursor after a page that looked at records up to `at` (None: there was none) and told these revisions.

        `more` says that records after `at` are waiting. Only changes up to `now`, by our clock, say how far it may go.
        """
        position = max((time for time in self._seen(at, told) if time <= now), default=self.floor)
        both = {id_: self.told.get(id_, frozenset()) | told.get(id_, frozenset()) for id_ in {*self.told, *told}}
        oldest = position - window
        kept = {id_: frozenset(one for one in stamps if one >= oldest) for id_, stamps in both.items()}
        kept = {id_: stamps for id_, stamps in kept.items() if stamps}
        if more:
            return replace(self, at=at, told=kept)
        return replace(self, at=None, floor=max(self.floor, position), told=kept)

    def _seen(self, at: tuple[int, int] | None, told: Told) -> Iterator[int]:
        """The times of changes that were looked at, here and on the page before."""
        yield from (place[0] for place in (at, self.at) if place is not None)
        yield from (stamp for stamps in told.values() for stamp in stamps)

    def with_done(self, finished: Iterable[int], reopened: Iterable[int]) -> Self:
        """The cursor that knows these works as done, and those as open."""
        newly, open_ = dict.fromkeys(finished), set(reopened)
        kept = [id_ for id_ in self.done if id_ not in newly and id_ not in open_]
        return replace(self, done=tuple([*kept, *newly][-REMEMBERED:]))


RECORDS = 25
"""How many changed records one page looks into."""
STAMPS = ("create_date", "write_date")
MODELS = {"opportunities": "sale.opportunity", "works": "project.work"}
DONE: Domain = ["status.progress", "=", 1.0]


class TrytonSource:
    """Polls one Tryton. Two streams, `opportunities` and `works`, each oldest first.

    Without a cursor an opportunity or a work is told from its next change on, or with `from_beginning` from its first.
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
        """As `Polls.poll`; a user who may not read the model is refused credentials."""
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
        """The cursor of one who was just connected: from the server's newest change on, unless our clock has not reached it."""
        if self._from_beginning:
            return StreamCursor()
        model = MODELS[stream]
        newest = [
            self._client.search(model, [[stamp, "!=", None]], STAMPS, order=((stamp, "DESC"),), limit=1)
            for stamp in STAMPS
        ]
        start = min(max((micros(changed_at(row)) for rows in newest for row in rows), default=0), self._now())
        cursor = StreamCursor(start=start, floor=start, told=self._there(model, start))
        if stream == "opportunities":
            return cursor
        before = ["OR", [["write_date", "<=", moment(start)]], [["write_date", "=", None]]]
        order = (("write_date", "DESC NULLS LAST"), ("id", "DESC"))
        done = self._client.search(model, [DONE, before], ["id"], order=order, limit=REMEMBERED)
        return cursor.with_done((row["id"] for row in reversed(done)), ())

    def _there(self, model: str, start: int) -> dict[int, frozenset[int]]:
        """The revisions that are there already with a time after the start: as little told as those before it."""
        after = (moment(start + 1), 0)
        rows = [row for stamp in STAMPS for row in self._client.by_time(model, stamp, [], after, STAMPS)]
        ids = sorted({row["id"] for row in rows})
        if model != "sale.opportunity":
            return {row["id"]: frozenset({micros(row["create_date"]), micros(changed_at(row))}) for row in rows}
        found = self._client.revisions(model, ids) if ids else {}
        return {id_: frozenset(map(micros, moments)) for id_, moments in found.items()}

    def _now(self) -> int:
        return micros(self._clock.now().astimezone(UTC).replace(tzinfo=None))

    def _opportunities(self, cursor: StreamCursor) -> Page:
        changed, more = self._changed("sale.opportunity", cursor, STAMPS)
        if not changed:
            return self._page([], cursor, changed, {}, more=more)
        histories = self._histories(changed)
        untold = {
            id_: frozenset(cursor.untold(id_, map(micros, moments), self._window)) for id_, moments in histories.items()
        }
        rows = self._states({id_: _with_previous(moments, untold[id_]) for id_, moments in histories.items()})
        logins = self._logins({row["employee"] for states in rows.values() for row in states if row["employee"]})
        facts = [
            fact for id_, states in rows.items() for fact in history_facts(self._instance, states, untold[id_], logins)
        ]
        return self._page(facts, cursor, changed, untold, more=more)

    def _histories(self, changed: list[Row]) -> dict[int, list[datetime]]:
        """The revisions of these records up to the one that was listed: what came since, even a deletion, comes next time."""
        listed = {row["id"]: changed_at(row) for row in changed}
        found = self._client.revisions("sale.opportunity", list(listed))
        return {id_: [one for one in moments if one <= listed[id_]] for id_, moments in found.items()}

    def _works(self, cursor: StreamCursor) -> Page:
        changed, more = self._changed("project.work", cursor, WORK_FIELDS)
        told = {row["id"]: frozenset({micros(row["create_date"]), micros(changed_at(row))}) for row in changed}
        born = [row["id"] for row in changed if cursor.untold(row["id"], [micros(row["create_date"])], self._window)]
        facts = list(work_facts(self._instance, changed, cursor.done, born))
        finished = [row["id"] for row in changed if is_done(row)]
        cursor = cursor.with_done(finished, (row["id"] for row in changed if not is_done(row)))
        return self._page(facts, cursor, changed, told, more=more)

    def _page(
        self,
        facts: list[Fact],
        cursor: StreamCursor,
        changed: list[Row],
        told: Mapping[int, frozenset[int]],
        *,
        more: bool,
    ) -> Page:
        at = _place(changed[-1]) if changed else None
        facts.sort(key=lambda fact: fact.time)
        now = self._now()
        after = cursor.advance(at, told, more=more, window=self._window, now=now)
        ahead = max(0, max((time for stamps in after.told.values() for time in stamps), default=0) - now)
        return Page(tuple(facts), after.text(), more, None if more else ahead / 1_000_000)

    def _changed(self, model: str, cursor: StreamCursor, fields: Sequence[str]) -> tuple[list[Row], bool]:
        """Records with a change that was not told, by the time of their last one; whether there are more.

        One that was never written has no write_date, so two orders are merged; one that is written meanwhile counts twice.
        """
        micros_, id_ = cursor.after(self._window)
        after = (moment(micros_), id_)
        created = self._client.by_time(model, "create_date", [["write_date", "=", None]], after, fields)
        written = self._client.by_time(model, "write_date", [], after, fields)
        found: dict[int, Row] = {}
        for row in heapq.merge(created, written, key=_place):
            if cursor.has_told(row["id"], micros(changed_at(row))):
                continue
            if len(found) == RECORDS:
                return list(found.values()), True
            found.pop(row["id"], None)
            found[row["id"]] = row
        return list(found.values()), False

    def _states(self, wanted: Mapping[int, Iterable[datetime]]) -> dict[int, list[Row]]:
        """Each record as it stood at these moments, oldest first. One that was deleted by then has no state."""
        at: dict[datetime, list[int]] = {}
        for id_, moments in wanted.items():
            for one in moments:
                at.setdefault(one, []).append(id_)
        found: dict[int, list[Row]] = {id_: [] for id_ in wanted}
        for one in sorted(at):
            for row in self._client.read("sale.opportunity", at[one], OPPORTUNITY_FIELDS, one):
                found[row["id"]].append(row)
        return found

    def _logins(self, employees: set[int]) -> dict[int, str]:
        """The user of each employee; the first where one has several, none where one has no login."""
        if not employees:
            return {}
        domain = [["employees", "in", sorted(employees)], ["active", "in", [True, False]]]
        users = self._client.search("res.user", domain, ["login", "employees"])
        return {employee: user["login"] for user in reversed(users) for employee in user["employees"]}


def _place(row: Row) -> tuple[int, int]:
    return micros(changed_at(row)), row["id"]


def _with_previous(moments: list[datetime], untold: frozenset[int]) -> list[datetime]:
    """The moments of the untold revisions, and of the one before each: a transition needs both sides."""
    pairs = zip([None, *moments], moments, strict=False)
    return sorted({one for before, now in pairs if micros(now) in untold for one in (before, now) if one})
