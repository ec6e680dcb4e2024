"""The events whose rows are gone from the ledger, by the keys that they left: 16 bytes of memory each, and a mark."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Connection

from hub.ledger import trimmed


@dataclass
class Trimmed:
    """`in` asks for an event by its id."""

    firsts: array[int] = field(default_factory=lambda: array("Q"))
    rests: array[int] = field(default_factory=lambda: array("Q"))
    """The two halves of each key, in the order of keys."""
    _seen: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, conn: Connection) -> Trimmed:
        """All that a ledger has."""
        found = cls()
        for key in trimmed.all_hashes(conn):
            found.firsts.append(int.from_bytes(key[:8], "big"))
            found.rests.append(int.from_bytes(key[8:], "big"))
        found._seen = bytearray(len(found.firsts))
        return found

    def __len__(self) -> int:
        return len(self.firsts)

    def __contains__(self, event_id: object) -> bool:
        return self._at(str(event_id)) is not None

    def see(self, event_ids: Iterable[str]) -> None:
        """Note that the log has these."""
        for event_id in event_ids if self.firsts else ():
            at = self._at(event_id)
            if at is not None:
                self._seen[at] = 1

    def unseen(self) -> Iterator[str]:
        """The keys of those that the log was not seen to have."""
        for at, seen in enumerate(self._seen):
            if not seen:
                yield f"{self.firsts[at]:016x}{self.rests[at]:016x}"

    def _at(self, event_id: str) -> int | None:
        key = trimmed.id_hash(event_id)
        first, rest = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        at = bisect_left(self.firsts, first)
        while at < len(self.firsts) and self.firsts[at] == first:
            if self.rests[at] == rest:
                return at
            at += 1
        return None


@dataclass(frozen=True)
class Known:
    """Every event that the ledger has taken in: those with a row, and those that are trimmed."""

    rows: Container[str]
    trimmed: Trimmed

    def __contains__(self, event_id: object) -> bool:
        return event_id in self.rows or event_id in self.trimmed
