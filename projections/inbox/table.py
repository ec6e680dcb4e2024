"""The table of messages."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, MetaData, Table, Text

from hub.kit.projection import TABLE_OPTIONS

messages = Table(
    "board_inbox",
    MetaData(),
    Column("key", Text, primary_key=True),  # command/<instance>/<command>
    Column("instance", Text, nullable=False),
    Column("case_id", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_at", Text, nullable=False),
    Column("why", JSON(none_as_null=True)),
    **TABLE_OPTIONS,
)
Index("inbox_person", messages.c.person)
