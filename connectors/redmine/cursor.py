"""How far the issues of a Redmine were read, as text in the ledger. Pure.

Redmine stamps changes with whole seconds, before their transaction is committed. So each poll lists a window before the
newest change again, and the cursor remembers the issues in it: how far the journal of each was told, and whether it can
still gain a change that its time of change does not show. All times are Redmine's, as text that sorts: `2026-01-05T09:00:00Z`.

A time that our clock has not reached moves no cursor, as the clock over there may have been wrong for one change only: such
an issue is told, and listed again until its time has come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import orjson

from schemas.event import moment

SETTLES = 10.0
"""Seconds by our clock after which a change with the same second as one that we saw is surely committed."""


@dataclass(frozen=True)
class Known:
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
class Cursor:
    """Where reading goes on."""

    since: str
    """Issues changed at this second or later are yet to be listed."""
    floor: str
    """Journal entries of this second or later are told, unless `known` says that they were; it stands still while catching up."""
    run: str | None = None
    """While catching up over several pages: the newest change that there was when this began. The next window ends there."""
    after: int | None = None
    """Within the one second `since` so many issues changed that they are listed by id: the last of them."""
    known: Mapping[int, Known] = field(default_factory=dict)

    @classmethod
    def start(cls, time: str, known: Mapping[int, Known] | None = None) -> Self:
        """Read what comes from this second on, but for what is known."""
        return cls(time, time, known=known or {})

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read what `text` wrote."""
        kept = orjson.loads(text)
        known = {int(id_): Known(*values) for id_, values in kept["known"].items()}
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
        read: Mapping[int, Known],
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
    return written(moment(time) + timedelta(seconds=seconds))


def written(time: datetime) -> str:
    """A time as Redmine writes it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
