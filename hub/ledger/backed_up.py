"""The last backup that was whole, as the ledger knows it: what it holds of the log need not stay here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from hub.ledger import identity

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
