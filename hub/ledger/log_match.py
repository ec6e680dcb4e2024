"""Whether a ledger and a log belong together: by the log's identity, and by the sequences that each has of the other.

`same`, or `moved`: all that the ledger has as published is there, in the log that it knew or in a copy of it. `behind`: the log it
knew, which lacks its newest events (it goes on from an older copy): what is missing can be sent again at its place. `lost`: another
log, which lacks them. `foreign`: another log, written by another outbox; one of the two belongs to another hub.
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
    """What a ledger knows of its log: the log's identity, its own outbox, and the sequences that were acknowledged and trimmed."""

    outbox: str
    log: str | None
    published: Mapping[int, int]
    floors: Mapping[int, int] = field(default_factory=dict)
    """Partition → the last sequence of which the ledger has no row any more."""
    backup: str = ""
    """Where and of when the last backup is."""

    @classmethod
    def of(cls, conn: Connection) -> KnownLog:
        """Read it. To be read before the log is: what is published later would seem to be missing there."""
        name = identity.known(conn, "outbox") or ""
        backup = retention.last(conn)
        where = str(backup) if backup is not None else ""
        log = identity.known(conn, identity.LOG)
        return cls(name, log, outbox.published_ends(conn), trimmed.sequences(conn), where)


@dataclass(frozen=True)
class Match:
    """How they belong together. `lacking`: partition → (last sequence in the log, last published). `writer`: who wrote last."""

    kind: Kind
    known: str | None
    seen: str
    outbox: str
    lacking: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    writer: str | None = None
    trimmed: int = 0
    """How many of the events that the log lacks are trimmed in the ledger too: only a backup may have them."""
    backup: str = ""

    @property
    def missing(self) -> int:
        """How many events the log lacks."""
        return sum(published - last for last, published in self.lacking.values())

    def error(self) -> HubError | None:
        """What is wrong, FatalError where a person must decide; None when nothing is."""
        told: dict[str, Any] = {"known": self.known or "—", "seen": self.seen, "events": self.missing}
        match self.kind:
            case "behind" if self.trimmed:
                return FatalError("HUB-E2122", trimmed=self.trimmed, backup=self.backup or "—", **told)
            case "behind":
                return HubError("HUB-E2117", **told)
            case "lost":
                return FatalError("HUB-E2116", **told)
            case "foreign":
                return FatalError("HUB-E5009", outbox=self.outbox, writer=self.writer, **told)
        return None


def match(log: EventLog, known: KnownLog) -> Match:
    """Compare; reads a few records of each partition, and all of one that seems to lack something."""
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
    """Judge. A ledger of a version that noted no log is taken to know one that holds anything of its outbox."""
    if not lacking:
        return "same" if known.log in (None, seen) else "moved"
    if known.log == seen or (known.log is None and any(there.values())):
        return "behind"
    return "lost" if writer in (None, known.outbox) else "foreign"
