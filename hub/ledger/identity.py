"""The ledger's identity, a key-value table: the outbox's name, which marks its sequences in the log, and the log it belongs to."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.database import insert_new, metadata, upsert

LOG, COMMANDS_LOG, CUTS = "log", "log.commands", "log.cuts"
"""The log that this ledger belongs to (`EventLog.identity` of `hub.events`), that of `hub.commands`, and the list of cuts."""
COPIES = "log.copies"
"""The log's replication factor."""
MAX_CUTS = 20
"""Cuts that are stored; older ones are forgotten."""
DOUBT = "doubt"
"""A time: commands caused by events from before it may have been executed already, under a ledger that is lost."""

identity = Table("identity", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


class Cut(NamedTuple):
    """One occasion on which the log was found truncated: a mark, and partition → the last sequence that remained."""

    mark: str
    tails: Mapping[int, int]


def is_another_history(conn: Connection) -> bool:
    """Whether this database was restored from a copy since `note_history`: PostgreSQL then begins a new timeline."""
    stored = get_value(conn, "history")
    return stored is not None and stored != _history(conn)


def note_history(conn: Connection) -> None:
    """Store the present history as the known one."""
    set_value(conn, "history", _history(conn))


def _history(conn: Connection) -> str:
    if conn.dialect.name != "postgresql":
        return ""  # a copied file cannot be distinguished from the original
    return str(conn.exec_driver_sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").scalar_one())


def get_value(conn: Connection, name: str) -> str | None:
    """The value stored under a name (`LOG`, …), or None."""
    found: str | None = conn.execute(select(identity.c.value).where(identity.c.name == name)).scalar_one_or_none()
    return found


def set_value(conn: Connection, name: str, value: str) -> None:
    """Store a value under a name, replacing the former one."""
    upsert(conn, identity, [{"name": name, "value": value}], "name")


def note_cut(conn: Connection, tails: Mapping[int, int]) -> None:
    """Record that the log was truncated and now ends at these sequences (partition → sequence).

    Offsets behind them denote other records from now on.
    """
    cut = [secrets.token_hex(4), {str(p): last for p, last in tails.items()}]
    all_cuts = [*json.loads(get_value(conn, CUTS) or "[]"), cut]
    set_value(conn, CUTS, json.dumps(all_cuts[-MAX_CUTS:]))


def cuts(conn: Connection) -> list[Cut]:
    """The newest `MAX_CUTS` cuts, oldest first."""
    stored = json.loads(get_value(conn, CUTS) or "[]")
    return [Cut(mark, {int(partition): last for partition, last in tails.items()}) for mark, tails in stored]


def last_cut(conn: Connection) -> str:
    """The mark of the newest cut; empty when there was none."""
    return next((cut.mark for cut in reversed(cuts(conn))), "")


def outbox_id(conn: Connection) -> str:
    """The outbox's name, chosen at random once."""
    insert_new(conn, identity, {"name": "outbox", "value": secrets.token_hex(4)}, "name")
    return get_value(conn, "outbox") or ""


def continue_outbox(conn: Connection, name: str) -> None:
    """Take over the name, and thereby the sequences, of a lost ledger's outbox."""
    set_value(conn, "outbox", name)
