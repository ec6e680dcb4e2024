"""How much of its history the ledger keeps, and why it keeps what is older than it was told to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Connection, select

from hub.ledger import backed_up, identity, outbox, trimmed
from hub.ledger.backed_up import BackedUp
from hub.ledger.outbox import outbox as table
from hub.ledger.trimming import NEWEST_STAYS, STAYS
from schemas.event import moment

SLACK = timedelta(days=1)
"""What is older by less than this may just wait for its turn."""

Why = Literal["young", "forever", "stuck", "never backed up", "not backed up since", "its turn"]


@dataclass(frozen=True)
class Kept:
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
    def of(cls, conn: Connection) -> Kept:
        """Look; `rows` is counted."""
        stuck = {floor.partition: floor.stuck for floor in trimmed.floors_of(conn).values() if floor.stuck is not None}
        backup = backed_up.of_log(conn, identity.known(conn, identity.LOG) or "")
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
        return "not backed up since" if moment(self.backup.at) < self.oldest else "its turn"


def _oldest(conn: Connection) -> datetime | None:
    """By the order of rows; those that stay in any case do not count."""
    goes = (table.c.type.not_in(STAYS), table.c.type.not_like(f"{NEWEST_STAYS}%"))
    found = select(table.c.recorded_at).where(*goes).order_by(table.c.id).limit(1)
    told = conn.execute(found).scalar_one_or_none()
    return moment(told) if told is not None else None
