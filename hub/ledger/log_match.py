"""Compares ledger and log by the log's identity and by the sequences that each has of the other, to detect a restored or wrong log.

`same`, `moved`: the log, or a copy of it, has every event that the ledger marks as published. `behind`: the known log lacks the
newest events (it was restored from an older copy); the ledger can resend them. `lost`: another log, which lacks them. `foreign`:
another log, written by another outbox; one of the two belongs to another hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from hub.errors import FatalError, HubError
from hub.ledger import identity, outbox, retention, trimmed
from hub.log.event_log import EventLog
from hub.log.outbox_in_log import latest_outbox, tails_at_least
from schemas.topics import EVENTS

Kind = Literal["same", "moved", "behind", "lost", "foreign"]


@dataclass(frozen=True)
class KnownLog:
    """What a ledger has stored of its log: the log's identity, its own outbox, and the acknowledged and trimmed sequences."""

    outbox: str
    log: str | None
    published: Mapping[int, int]
    floors: Mapping[int, int] = field(default_factory=dict)
    """Partition → the last sequence whose row is trimmed."""
    backup: str = ""
    """Folder and time of the last backup."""

    @classmethod
    def of(cls, conn: Connection) -> KnownLog:
        """Read it from the ledger. Call this before reading the log: events published in between would seem to be missing there."""
        name = identity.get_value(conn, "outbox") or ""
        backup = retention.last_backup(conn)
        where = str(backup) if backup is not None else ""
        log = identity.get_value(conn, identity.LOG)
        return cls(name, log, outbox.published_ends(conn), trimmed.sequences(conn), where)


@dataclass(frozen=True)
class Match:
    """The comparison's result. `lacking`: partition → (last sequence in the log, last published). `writer`: its newest outbox."""

    kind: Kind
    known: str | None
    seen: str
    outbox: str
    lacking: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    writer: str | None = None
    trimmed: int = 0
    """How many of the events that the log lacks are trimmed in the ledger too: only a backup can have them."""
    backup: str = ""

    @property
    def missing(self) -> int:
        """How many events the log lacks."""
        return sum(published - last for last, published in self.lacking.values())

    def error(self) -> HubError | None:
        """The mismatch as an error, FatalError where a person must decide; None for `same` and `moved`."""
        fields: dict[str, Any] = {"known": self.known or "—", "seen": self.seen, "events": self.missing}
        match self.kind:
            case "behind" if self.trimmed:
                return FatalError("HUB-E2122", trimmed=self.trimmed, backup=self.backup or "—", **fields)
            case "behind":
                return HubError("HUB-E2117", **fields)
            case "lost":
                return FatalError("HUB-E2116", **fields)
            case "foreign":
                return FatalError("HUB-E5009", outbox=self.outbox, writer=self.writer, **fields)
        return None


def match(log: EventLog, known: KnownLog) -> Match:
    """Compare; reads a few records of each partition, and all records of a partition that seems to lack events."""
    seen = log.identity(EVENTS.name)
    there = tails_at_least(log, known.outbox, known.published)
    lacking = {
        partition: (there.get(partition, 0), published)
        for partition, published in known.published.items()
        if there.get(partition, 0) < published
    }
    writer = latest_outbox(log) if lacking else None
    kind, gone = kind_of(known, seen, there, lacking, writer), _trimmed(lacking, known.floors)
    return Match(kind, known.log, seen, known.outbox, lacking, writer, gone, known.backup)


def _trimmed(lacking: Mapping[int, tuple[int, int]], floors: Mapping[int, int]) -> int:
    return sum(max(0, floors.get(partition, 0) - last) for partition, (last, _) in lacking.items())


def kind_of(
    known: KnownLog,
    seen: str,
    there: Mapping[int, int],
    lacking: Mapping[int, tuple[int, int]],
    writer: str | None,
) -> Kind:
    """Classify. A ledger of a version that stored no log identity is assumed to know a log that has any event of its outbox."""
    if not lacking:
        return "same" if known.log in (None, seen) else "moved"
    if known.log == seen or (known.log is None and any(there.values())):
        return "behind"
    return "lost" if writer in (None, known.outbox) else "foreign"
