"""Retention of the outbox: which rows are still there, why rows older than the setting remain, and the last complete backup.

Where the log has only one broker, rows wait for a backup; rows that are in a backup may be trimmed.
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
from hub.ledger.trimming import NEWEST_RETAINED_PREFIX, RETAINED_TYPES
from schemas.envelope import parse_time

_NAME = "backup"


@dataclass(frozen=True)
class BackupRecord:
    """A backup's folder and time; the log's identity and the mark of its last cut; partition → first offset not in the backup."""

    folder: str
    at: str
    log: str
    cut: str
    next_offsets: Mapping[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.folder} ({self.at})"


def record_backup(conn: Connection, backup: BackupRecord) -> None:
    """Store a backup as the last one."""
    offsets = {str(partition): offset for partition, offset in backup.next_offsets.items()}
    identity.set_value(conn, _NAME, json.dumps({**vars(backup), "next_offsets": offsets}))


def last_backup(conn: Connection) -> BackupRecord | None:
    """The last backup; None before the first."""
    stored = json.loads(identity.get_value(conn, _NAME) or "null")
    if stored is None:
        return None
    offsets = {int(partition): offset for partition, offset in stored["next_offsets"].items()}
    return BackupRecord(**{**stored, "next_offsets": offsets})


def backup_of_log(conn: Connection, log: str) -> BackupRecord | None:
    """The last backup if it is of this log since its last cut; offsets of another log denote other records."""
    backup = last_backup(conn)
    return backup if backup is not None and (backup.log, backup.cut) == (log, identity.last_cut(conn)) else None


SLACK = timedelta(days=1)
"""A row that is overdue by less than this may just wait for the next trimming."""

Why = Literal["young", "forever", "stuck", "never backed up", "not backed up since", "its turn"]


@dataclass(frozen=True)
class RetainedRows:
    """`rows`: events with a row; `keys`: trimmed events, reduced to their key; `oldest`: when the oldest row was recorded."""

    rows: int
    keys: int
    oldest: datetime | None = None
    stuck: Mapping[int, int] = field(default_factory=dict)
    """Partition → a sequence that the log lacks."""
    backup: BackupRecord | None = None
    """The last backup of the log as it is now."""
    copies: int | None = None
    """The log's replication factor, as last seen."""

    @classmethod
    def of(cls, conn: Connection) -> RetainedRows:
        """Read it from the ledger; counts all rows of the outbox."""
        stuck = {floor.partition: floor.stuck for floor in trimmed.floors_of(conn).values() if floor.stuck is not None}
        backup = backup_of_log(conn, identity.get_value(conn, identity.LOG) or "")
        return cls(
            outbox.count(conn),
            trimmed.count(conn),
            _oldest(conn),
            stuck,
            backup,
            int(identity.get_value(conn, identity.COPIES) or 0) or None,
        )

    def why(self, keep: timedelta | None, now: datetime, copies: int | None) -> Why:
        """Why the oldest row is still there; `copies` is the configured replication factor, used until one was seen."""
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
    """When the first row was recorded that trimming may delete; retained types do not count."""
    trimmable = (table.c.type.not_in(RETAINED_TYPES), table.c.type.not_like(f"{NEWEST_RETAINED_PREFIX}%"))
    found = select(table.c.recorded_at).where(*trimmable).order_by(table.c.id).limit(1)
    recorded_at = conn.execute(found).scalar_one_or_none()
    return parse_time(recorded_at) if recorded_at is not None else None
