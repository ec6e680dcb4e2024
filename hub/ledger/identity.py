"""Which ledger this is: readers of the log tell by its outbox's name whose sequences they count."""

from __future__ import annotations

import secrets

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.dialect import insert_new, put
from hub.ledger.metadata import metadata

identity = Table("identity", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


def is_another_history(conn: Connection) -> bool:
    """Whether this database has gone on from a copy since `note_history`: PostgreSQL then counts a new timeline."""
    known = conn.execute(select(identity.c.value).where(identity.c.name == "history")).scalar_one_or_none()
    return known is not None and known != _history(conn)


def note_history(conn: Connection) -> None:
    """Note the present history as the one that is known."""
    put(conn, identity, [{"name": "history", "value": _history(conn)}], "name")


def _history(conn: Connection) -> str:
    if conn.dialect.name != "postgresql":
        return ""  # a copy of a file cannot be told from it
    return str(conn.exec_driver_sql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)").scalar_one())


def outbox_id(conn: Connection) -> str:
    """The outbox's own name, chosen once."""
    insert_new(conn, identity, {"name": "outbox", "value": secrets.token_hex(4)}, "name")
    name: str = conn.execute(select(identity.c.value).where(identity.c.name == "outbox")).scalar_one()
    return name


def continue_outbox(conn: Connection, name: str) -> None:
    """Go on with the sequences of a ledger that is gone."""
    put(conn, identity, [{"name": "outbox", "value": name}], "name")
