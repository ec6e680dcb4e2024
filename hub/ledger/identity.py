"""Which ledger this is: readers of the log tell by its outbox's name whose sequences they count."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.database import insert_new, metadata, put

LOG, COMMANDS_LOG, CUTS = "log", "log.commands", "log.cuts"
"""The log that this ledger belongs to (`EventLog.identity` of `hub.events`), that of `hub.commands`, and when it was found cut."""
COPIES = "log.copies"
"""How many brokers keep the log."""
MOST_CUTS = 20
"""Cuts that are remembered."""
DOUBT = "doubt"
"""A moment: what is asked for by events from before it may have been done by a ledger that is gone."""

identity = Table("identity", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


class Cut(NamedTuple):
    """A time that the log was found cut, by a mark, and partition → the last sequence that was left."""

    mark: str
    tails: Mapping[int, int]


def is_another_history(conn: Connection) -> bool:
    """Whether this database has gone on from a copy since `note_history`: PostgreSQL then counts a new timeline."""
    noted = known(conn, "history")
    return noted is not None and noted != _history(conn)


def note_history(conn: Connection) -> None:
    """Note the present history as the one that is known."""
    note(conn, "history", _history(conn))


def _history(conn: Connection) -> str:
    if conn.dialect.name != "postgresql":
        return ""  # a copy of a file cannot be told from it
    return str(conn.exec_driver_sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").scalar_one())


def known(conn: Connection, name: str) -> str | None:
    """What was noted under a name (`LOG`, …); None when nothing was."""
    found: str | None = conn.execute(select(identity.c.value).where(identity.c.name == name)).scalar_one_or_none()
    return found


def note(conn: Connection, name: str, value: str) -> None:
    """Note something under a name, in the place of what was noted before."""
    put(conn, identity, [{"name": name, "value": value}], "name")


def note_cut(conn: Connection, tails: Mapping[int, int]) -> None:
    """Note that the log was found to end at these sequences (partition → sequence), and not where it did once.

    Offsets behind them mean other records now.
    """
    told = [*json.loads(known(conn, CUTS) or "[]"), [secrets.token_hex(4), {str(p): last for p, last in tails.items()}]]
    note(conn, CUTS, json.dumps(told[-MOST_CUTS:]))


def cuts(conn: Connection) -> list[Cut]:
    """The newest of them, oldest first."""
    told = json.loads(known(conn, CUTS) or "[]")
    return [Cut(mark, {int(partition): last for partition, last in tails.items()}) for mark, tails in told]


def last_cut(conn: Connection) -> str:
    """The mark of the newest one; empty when there was none."""
    return next((cut.mark for cut in reversed(cuts(conn))), "")


def outbox_id(conn: Connection) -> str:
    """The outbox's own name, chosen once."""
    insert_new(conn, identity, {"name": "outbox", "value": secrets.token_hex(4)}, "name")
    return known(conn, "outbox") or ""


def continue_outbox(conn: Connection, name: str) -> None:
    """Go on with the sequences of a ledger that is gone."""
    note(conn, "outbox", name)
