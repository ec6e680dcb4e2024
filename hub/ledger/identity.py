"""Which ledger this is: a hub whose ledger was made anew counts its sequences anew, and readers must be able to tell."""

from __future__ import annotations

import secrets

from sqlalchemy import Column, Connection, Table, Text, select

from hub.ledger.dialect import insert_new
from hub.ledger.metadata import metadata

identity = Table("identity", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))


def outbox_id(conn: Connection) -> str:
    """The outbox's own name, chosen once."""
    insert_new(conn, identity, {"name": "outbox", "value": secrets.token_hex(4)}, "name")
    name: str = conn.execute(select(identity.c.value).where(identity.c.name == "outbox")).scalar_one()
    return name
