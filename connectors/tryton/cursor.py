"""How far a stream of Tryton's records was read, as text in the ledger. Pure.

Tryton stamps a change when its transaction starts, so a late commit appears in the past. Each poll therefore reads again a
window before the newest change it has seen, and the cursor remembers the revisions in that window that were told. A time
that our clock has not reached moves no cursor, as the server's may have been wrong for one change only: such a record is
told, and looked at again until its time has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import orjson

REMEMBERED = 5000
"""How many finished works a cursor knows. One that is reopened after so many later ones is not told as reopened."""

Told = Mapping[int, frozenset[int]]
"""Record id → the revisions of it that were told, each by its microseconds since 1970."""


@dataclass(frozen=True)
class Cursor:
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
