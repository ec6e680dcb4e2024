"""How much of its history the ledger keeps, and why it keeps what is older than it was told to.

The last backup that was whole, as the ledger knows it: what it holds of the log need not stay here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, select

from hub.ledger import identity, outbox, trimmed
from hub.ledger.outbox import outbox as table
from hub.ledger.trimming import NEWEST_STAYS, STAYS
from schemas.envelope import parse_time

_NAME = "backup"


@dataclass(frozen=True)
class BackedUp:
    """Where it lies, and of when it is; of which log (its identity, the mark of its last cut); and the first offsets it lacks."""

    folder: str
    at: str
    log: str
    cut: str
    next_offsets: Mapping[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.folder} ({self.at})"


def note(conn: Connection, backup: BackedUp) -> None:
    """Note a backup in the place of the one before."""
    offsets = {str(partition): offset for partition, offset in backup.next_offsets.items()}
    identity.note(conn, _NAME, json.dumps({**vars(backup), "next_offsets": offsets}))


def last(conn: Connection) -> BackedUp | None:
    """The last one; None when none was ever made."""
    told = json.loads(identity.known(conn, _NAME) or "null")
    if told is None:
        return None
    offsets = {int(partition): offset for partition, offset in told["next_offsets"].items()}
    return BackedUp(**{**told, "next_offsets": offsets})


def of_log(conn: Connection, log: str) -> BackedUp | None:
    """The last one, if it is of this log as it is now: offsets of another mean other records."""
    found = last(conn)
    return found if found is not None and (found.log, found.cut) == (log, identity.last_cut(conn)) else None


SLACK = timedelta(days=1)
"""What is older by less than this may just wait for its turn."""

Why = Literal["young", "forever", "stuck", "never backed up", "not backed up since", "its turn"]


@dataclass(frozen=True)
class RetainedRows:
    """`rows` are whole events, `keys` those of which only a key is left; `oldest` is when the oldest row was recorded."""

    rows: int
    keys: int
    oldest: datetime | None = None
    stuck: Mapping[int, int] = field(default_factory=dict)
    """Partition → a sequence that the log lacks."""
    backup: BackedUp | None = None
    """The last backup of the log as it is now."""
    copies: int | None = None
    """How many brokers were seen to keep the log."""

    @classmethod
    def of(cls, conn: Connection) -> RetainedRows:
        """Look; `rows` is counted."""
        stuck = {floor.partition: floor.stuck for floor in trimmed.floors_of(conn).values() if floor.stuck is not None}
        backup = of_log(conn, identity.known(conn, identity.LOG) or "")
        return cls(
            outbox.count(conn),
            trimmed.count(conn),
            _oldest(conn),
            stuck,
            backup,
            int(identity.known(conn, identity.COPIES) or 0) or None,
        )

    def why(self, keep: timedelta | None, now: datetime, copies: int | None) -> Why:
        """Why the oldest row is still there; `copies` is how many there should be of the log, where none were seen yet."""
        if keep is None:
            return "forever"
        if self.oldest is None or now - self.oldest < keep + min(SLACK, keep):
            return "young"
        if self.stuck:
            return "stuck"
        if (self.copies or copies) != 1:
            return "its turn"
        if self.backup is None:
            return "never backed up"
        return "not backed up since" if parse_time(self.backup.at) < self.oldest else "its turn"


def _oldest(conn: Connection) -> datetime | None:
    """By the order of rows; those that stay in any case do not count."""
    goes = (table.c.type.not_in(STAYS), table.c.type.not_like(f"{NEWEST_STAYS}%"))
    found = select(table.c.recorded_at).where(*goes).order_by(table.c.id).limit(1)
    told = conn.execute(found).scalar_one_or_none()
    return parse_time(told) if told is not None else None
